package browsertest

import (
	"context"
	"fmt"
	"time"

	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/cdproto/page"
	"github.com/chromedp/chromedp"
)

// This file simulates events in the life of a tab.

// Close closes the tab, as a user does.
func (p *Page) Close() {
	p.tb.Helper()
	p.close()
}

// Crash kills the tab's renderer process. No code of the page runs afterwards, including handlers for the end of
// the page.
func (p *Page) Crash() {
	p.tb.Helper()
	// The command does not return, because the process that would respond has crashed.
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	go func() {
		defer cancel()
		_, _ = chromedp.Call(ctx, page.Crash, cdp.Empty{})
	}()
	p.tb.Cleanup(cancel)
}

// Freeze freezes the page, as browsers do with hidden pages: the page receives an event, and then its tasks do not
// run.
func (p *Page) Freeze() { p.lifecycle(page.SetWebLifecycleStateStateFrozen) }

// Thaw resumes a frozen page.
func (p *Page) Thaw() { p.lifecycle(page.SetWebLifecycleStateStateActive) }

func (p *Page) lifecycle(state page.SetWebLifecycleStateState) {
	p.tb.Helper()
	do(p, func(ctx context.Context, t *chromedp.Target) (chromedp.Void, error) {
		_, err := cdp.Call(ctx, t, page.SetWebLifecycleState, page.SetWebLifecycleStateParams{State: state})
		return chromedp.Void{}, err
	})
}

// Hang keeps the page busy with one task for the given time. Unlike with Freeze, the page does not receive an event.
func (p *Page) Hang(d time.Duration) {
	p.tb.Helper()
	p.Run(fmt.Sprintf("setTimeout(() => { for (const end = Date.now() + %d; Date.now() < end;); })", d.Milliseconds()))
}
