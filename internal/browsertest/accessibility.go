package browsertest

import (
	"context"
	"encoding/json"
	"fmt"
	"slices"

	"github.com/chromedp/cdproto/accessibility"
	"github.com/chromedp/cdproto/cdp"
	"github.com/chromedp/chromedp"
)

// named are the roles that mean nothing to a screen reader without a name.
var named = []string{
	"button", "link", "textbox", "searchbox", "checkbox", "combobox", "table", "region", "group", "dialog", "image", "heading",
}

// A Node is what a screen reader finds on a page.
type Node struct{ Role, Name string }

// Accessible is the page as a screen reader finds it.
func (p *Page) Accessible() (nodes []Node) {
	p.tb.Helper()
	tree := do(p, func(ctx context.Context, t *chromedp.Target) (accessibility.GetFullAXTreeResult, error) {
		return cdp.Call(ctx, t, accessibility.GetFullAXTree, accessibility.GetFullAXTreeParams{})
	})
	for _, n := range tree.Nodes {
		if !n.Ignored {
			nodes = append(nodes, Node{text(n.Role), text(n.Name)})
		}
	}
	return nodes
}

// Unnamed are the roles of those nodes that should have a name and have none.
func Unnamed(nodes []Node) (roles []string) {
	for _, n := range nodes {
		if n.Name == "" && slices.Contains(named, n.Role) {
			roles = append(roles, n.Role)
		}
	}
	return roles
}

func text(v *accessibility.Value) string {
	if v == nil {
		return ""
	}
	var s string
	if err := json.Unmarshal([]byte(v.Value), &s); err != nil {
		return fmt.Sprint(v.Value)
	}
	return s
}
