package browsertest

import (
	"context"
	"sync"

	"github.com/chromedp/chromedp"
)

// A Console collects the messages in the developer console of a page.
type Console struct {
	mu       sync.Mutex
	messages []string
}

// Watch collects the messages in the page's console from now on, until the test ends. To collect all messages, open
// about:blank, watch, and then navigate.
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
			c.messages = append(c.messages, m.String())
			c.mu.Unlock()
		}
	}()
	p.tb.Cleanup(func() {
		cancel()
		<-ended
	})
	return c
}

// Messages returns all messages so far, in the form "error: …".
func (c *Console) Messages() []string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return append([]string(nil), c.messages...)
}
