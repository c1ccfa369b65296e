package browsertest

import (
	"context"
	"sync"

	"github.com/chromedp/chromedp"
)

// A Console is what a page makes the browser say to its developer.
type Console struct {
	mu   sync.Mutex
	said []string
}

// Watch listens to the page's console from now on, until the test ends: open
// about:blank, watch, and navigate, to miss nothing.
func (p *Page) Watch() *Console {
	p.tb.Helper()
	c := new(Console)
	ctx, cancel := context.WithCancel(p.ctx)
	messages, ended := chromedp.Console(ctx), make(chan struct{})
	go func() {
		defer close(ended)
		for m, err := range messages {
			if err != nil {
				return
			}
			c.mu.Lock()
			c.said = append(c.said, m.String())
			c.mu.Unlock()
		}
	}()
	p.tb.Cleanup(func() {
		cancel()
		<-ended
	})
	return c
}

// Said is all that was said so far, each as "error: …".
func (c *Console) Said() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.said...)
}
