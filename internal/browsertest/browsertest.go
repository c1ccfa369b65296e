// Package browsertest runs pages in real browsers, headless and with access to loopback only. The browsers end
// with the test.
package browsertest

import (
	"context"
	"testing"
	"time"

	"github.com/chromedp/chromedp"

	"usercast/internal/need"
)

// patience is the timeout for all operations. It is long because it only matters to a test that fails.
const patience = 60 * time.Second

// Browser is one Chromium process with a separate profile.
type Browser struct{ ctx context.Context }

// Page is one tab. Its methods fail the test on an error. Only one goroutine may use it at a time.
type Page struct {
	tb    testing.TB
	ctx   context.Context
	close context.CancelFunc
}

// OneProcess lets all pages of this machine share a renderer process, because the start of a process takes longer than
// most tests. Do not use it with Crash or Hang, which then affect all pages.
var OneProcess = chromedp.Flag("process-per-site", true)

// Start starts a browser that ends with the test.
func Start(tb testing.TB, more ...chromedp.ExecAllocatorOption) *Browser {
	tb.Helper()
	options := append(chromedp.DefaultExecAllocatorOptions[:],
		chromedp.ExecPath(need.Program(tb, Chromium...)),
		chromedp.NoSandbox, // the sandbox needs permissions that are missing in a container
		chromedp.DisableGPU,
		chromedp.Flag("in-process-gpu", true), // one process less to start
		chromedp.Flag("disable-component-update", true),
		chromedp.Flag("no-proxy-server", true),
		chromedp.Flag("host-resolver-rules", "MAP *.localhost 127.0.0.1, MAP * ~NOTFOUND, EXCLUDE 127.0.0.1, EXCLUDE localhost"),
	)
	options = append(options, more...)
	ctx, stopProcess := chromedp.NewExecAllocator(context.Background(), options...)
	ctx, stopBrowser := chromedp.NewContext(ctx)
	tb.Cleanup(func() {
		stopBrowser()
		stopProcess() // also waits for its end
	})
	if err := chromedp.Do(ctx); err != nil {
		tb.Fatalf("start chromium: %v", err)
	}
	return &Browser{ctx}
}

// Chromium are names of Chromium and Chrome, for need.Program.
var Chromium = []string{
	"chromium", "chromium-browser", "google-chrome", "google-chrome-stable",
	"/Applications/Chromium.app/Contents/MacOS/Chromium",
	"/Applications/Google Chrome.app/Contents/MacOS/Google Chrome",
}

// Open opens a URL in a new tab, which is closed with the test.
func (b *Browser) Open(tb testing.TB, url string) *Page {
	tb.Helper()
	ctx, closeTab := chromedp.NewContext(b.ctx)
	tb.Cleanup(closeTab)
	if err := chromedp.Do(ctx); err != nil { // the tab lives as long as this context
		tb.Fatalf("open a tab: %v", err)
	}
	p := &Page{tb, ctx, closeTab}
	p.Do(chromedp.Navigate(url))
	return p
}

// Do runs actions of chromedp in the page.
func (p *Page) Do(steps ...chromedp.Action[chromedp.Void]) {
	p.tb.Helper()
	do(p, chromedp.Steps(steps...))
}

// Run runs a script in the page.
func (p *Page) Run(script string) {
	p.tb.Helper()
	do(p, chromedp.Evaluate[chromedp.Void](script))
}

// Text returns the value of a JavaScript expression as a string.
func (p *Page) Text(expression string) string {
	p.tb.Helper()
	return do(p, chromedp.Evaluate[string]("String("+expression+")"))
}

// Until waits until a JavaScript expression is true.
func (p *Page) Until(expression string) {
	p.tb.Helper()
	until(p.tb, expression, func() bool { return p.Text("Boolean("+expression+")") == "true" })
}

func do[T any](p *Page, action chromedp.Action[T]) T {
	p.tb.Helper()
	ctx, cancel := context.WithTimeout(p.ctx, patience)
	defer cancel()
	value, err := chromedp.Run(ctx, action)
	if err != nil {
		p.tb.Fatalf("in the browser: %v", err)
	}
	return value
}
