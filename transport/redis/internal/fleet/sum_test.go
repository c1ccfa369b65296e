package fleet

import (
	"strings"
	"testing"
)

func BenchmarkSum(b *testing.B) {
	channel := "user-10000000:activity"
	for name, payload := range map[string]string{"7B": "payload", "87B": strings.Repeat("x", 87), "200B": strings.Repeat("x", 200)} {
		b.Run(name, func(b *testing.B) {
			b.ReportAllocs()
			var total uint32
			for b.Loop() {
				total += sum(channel, payload)
			}
			_ = total
		})
	}
}
