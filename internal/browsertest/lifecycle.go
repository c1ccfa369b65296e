package browsertest

import (
	"context"
	"fmt"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// What becomes of tabs in a browser that is in use.

// Close closes the tab, as its user would.
func (p *Page) Close() {
	p.tb.Helper()
	p.close()
}

// Crash kills the tab's renderer process. Nothing runs in the page any more, not
// even what runs when a page ends.
func (p *Page) Crash() {
	p.tb.Helper()
	// The command is never answered: who should do so?
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	go func() {
		defer cancel()
		_, _ = chromedp.Call(ctx, page.Crash, cdp.Empty{})
	}()
	p.tb.Cleanup(cancel)
}

// Freeze freezes the page, as browsers do with pages that nobody looks at: it is
// told, and then none of its tasks run.
func (p *Page) Freeze() { p.lifecycle(page.SetWebLifecycleStateStateFrozen) }

// Thaw lets a frozen page go on.
func (p *Page) Thaw() { p.lifecycle(page.SetWebLifecycleStateStateActive) }

func (p *Page) lifecycle(state page.SetWebLifecycleStateState) {
	p.tb.Helper()
	do(p, func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: state})
		return chromedp.Void{}, err
	})
}

// Hang keeps the page busy with one task for so long: unlike a frozen page, it is not told.
func (p *Page) Hang(d time.Duration) {
	p.tb.Helper()
	p.Run(fmt.Sprintf("setTimeout(() => { for (const end = Date.now() + %d; Date.now() < end;); })", d.Milliseconds()))
}
