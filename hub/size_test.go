package hub

import (
	"testing"
	"unsafe"
)

// An idle stream in the hub is a Client, and an owner for its user. Both fill a size class of the allocator: one more byte
// costs 16.
func TestIdleClientIsSmall(t *testing.T) {
	t.Parallel()
	for name, size := range map[string][2]uintptr{
		"Client": {unsafe.Sizeof(Client{}), 176},
		"owner":  {unsafe.Sizeof(owner{}), 80},
		"rare":   {unsafe.Sizeof(rare{}), 48}, // each client that ends
	} {
		if size[0] > size[1] {
			t.Errorf("%s takes %d bytes, want %d", name, size[0], size[1])
		}
	}
}
