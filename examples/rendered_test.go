package examples

import (
	"context"
	"io"
	"net/http"
	"regexp"
	"strings"
	"time"

	"usercast/internal/doctest"
	"usercast/internal/hubtest"
)

var positionInPage = regexp.MustCompile(`<ul id="inbox" data-position="([^"]*)">`)

// lateMessage is published by the app of a test after it has read the state of a page, and before it renders the page.
const lateMessage = `"late"`

// wantRendered checks the page /inbox, which contains a position and the message "first". Its stream must receive what is
// published after the app has read the state. Without a hub, the page is rendered anyway, and its stream begins with a gap.
// At the end, the hub is the one of block.
func (b *browser) wantRendered(block doctest.Block) {
	b.t.Helper()
	id := b.inbox()
	if id == "unknown" {
		b.t.Fatal("the page has no position")
	}
	stream := b.openWith("?last-event-id=" + id)
	stream.want(lateMessage)
	stream.Close()

	b.s.FreezeHub()
	if id := b.inbox(); id != "unknown" {
		b.t.Errorf("while the hub is unresponsive, the page has the position %q", id)
	}
	b.s.KillHub()
	id = b.inbox()
	if id != "unknown" {
		b.t.Errorf("while the hub is down, the page has the position %q", id)
	}
	b.s.Do(block)
	stream = b.openWith("?last-event-id=" + id)
	defer stream.Close()
	stream.WantGap(b.t, "unknown-id")
}

// inbox requests the page and returns its position.
func (b *browser) inbox() string {
	b.t.Helper()
	ctx, cancel := context.WithTimeout(b.t.Context(), hubtest.Patience)
	defer cancel()
	r, err := http.NewRequestWithContext(ctx, "GET", b.s.AppURL()+"/inbox", nil)
	if err != nil {
		b.t.Fatal(err)
	}
	start := time.Now()
	answer, err := b.client.Do(r)
	if err != nil {
		b.t.Fatal(err)
	}
	defer answer.Body.Close()
	text, err := io.ReadAll(answer.Body)
	found := positionInPage.FindStringSubmatch(string(text))
	if err != nil || answer.StatusCode != 200 || found == nil || !strings.Contains(string(text), "first</li>") {
		b.t.Fatalf("GET /inbox: %s, %v\n%s", answer.Status, err, text)
	}
	if took := time.Since(start); took > 8*time.Second {
		b.t.Errorf("GET /inbox took %v", took)
	}
	return found[1]
}
