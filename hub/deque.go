package hub

// A deque is a list that grows at the back and shrinks at the front. The zero value is empty. An empty deque
// costs one pointer.
type deque[T any] struct{ list *dequeList[T] }

type dequeList[T any] struct {
	items []T
	head  int // index of the first item
}

func (d *deque[T]) len() int { return len(d.all()) }

func (d *deque[T]) at(i int) T { return d.list.items[d.list.head+i] }

func (d *deque[T]) all() []T {
	if d.list == nil {
		return nil
	}
	return d.list.items[d.list.head:]
}

func (d *deque[T]) pushBack(v T) {
	if d.list == nil {
		d.list = new(dequeList[T])
	}
	d.list.items = append(d.list.items, v)
}

// popFront removes and returns the first item. It releases memory when at least as many items were removed as
// remain.
func (d *deque[T]) popFront() T {
	var none T
	l := d.list
	v := l.items[l.head]
	l.items[l.head] = none
	l.head++
	switch n := d.len(); {
	case n == 0:
		d.list = nil
	case l.head >= n && l.head >= 16:
		l.items = append(make([]T, 0, n+n/4), d.all()...)
		l.head = 0
	}
	return v
}
