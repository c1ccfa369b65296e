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

// named are the roles that need a name for screen readers.
var named = []string{
	"button", "link", "textbox", "searchbox", "checkbox", "combobox", "table", "region", "group", "dialog", "image", "heading",
}

// A Node is a node of the accessibility tree.
type Node struct{ Role, Name string }

// Accessible returns the accessibility tree of the page, which screen readers use.
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

// Unnamed returns the roles of nodes without a name that need one.
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
