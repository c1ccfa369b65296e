package hub

// A deque is a list that grows at the back and shrinks at the front. The zero
// value is empty and owns no memory.
type deque[T any] struct {
	items []T
	head  int // items before it are gone
}

func (d *deque[T]) len() int     { return len(d.items) - d.head }
func (d *deque[T]) at(i int) T   { return d.items[d.head+i] }
func (d *deque[T]) all() []T     { return d.items[d.head:] }
func (d *deque[T]) pushBack(v T) { d.items = append(d.items, v) }
func (d *deque[T]) clear()       { *d = deque[T]{} }

// popFront takes the first item out. What is taken costs memory until as much has
// been taken as is left.
func (d *deque[T]) popFront() T {
	var none T
	v := d.items[d.head]
	d.items[d.head] = none
	d.head++
	switch n := d.len(); {
	case n == 0:
		d.clear()
	case d.head >= n && d.head >= 16:
		d.items = append(make([]T, 0, n+n/4), d.all()...)
		d.head = 0
	}
	return v
}
