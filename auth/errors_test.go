package auth

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"
	"testing"
	"time"
)

func TestRequestErrorsSayWhatHappened(t *testing.T) {
	for _, c := range []struct {
		err  error
		want string
	}{
		{fmt.Errorf("dial: %w", context.DeadlineExceeded), "session check timed out after 2s (--auth-timeout)"},
		{io.EOF, "session check failed: connection closed without a complete response"},
		{errors.New("refused"), "session check failed: refused"},
	} {
		if err := requestError("session check", c.err, 2*time.Second); err.Error() != c.want || !errors.Is(err, c.err) {
			t.Errorf("%v, want %s", err, c.want)
		}
	}
}

func TestUnsignedTokensGetNoAdviceAboutKeys(t *testing.T) {
	if hint := Hint(algorithmError("none")); hint == "" || strings.Contains(hint, "key") {
		t.Errorf("hint %q", hint)
	}
	if hint := Hint(algorithmError("HS256")); hint != keysHint {
		t.Errorf("hint %q", hint)
	}
}

func TestUnreadableKeysSayWhatIsMissing(t *testing.T) {
	for text, want := range map[string]string{
		`{"k":"AAAA"}`:                "does not have a type (kty)",
		`{"kty":"oct","k":"AAAA"}`:    "unsupported key type \"oct\"",
		`{"kty":"RSA","e":"AQAB"}`:    "needs n and e",
		`{"kty":"EC","x":"AA"}`:       "does not have a curve",
		`{"kty":"EC","crv":"P-256"}`:  `curve "P-256" is incomplete`,
		`{"kty":"XYZ","crv":"P-256"}`: `unsupported key type "XYZ"`,
	} {
		if _, err := parseJWK([]byte(text)); err == nil || !strings.Contains(err.Error(), want) {
			t.Errorf("%s: %v, want %q", text, err, want)
		}
	}
}
