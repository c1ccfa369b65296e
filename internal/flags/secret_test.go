package flags

import (
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestSecretIsReadWithoutWhatEditorsAdd(t *testing.T) {
	t.Parallel()
	file := filepath.Join(t.TempDir(), "secret")
	for content, want := range map[string]string{
		"secret": "secret", "secret\n": "secret", "\ufeffsecret\r\n": "secret", " secret ": " secret ", "\n": "", "\ufeff\n": "",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		if got, err := ReadSecret(file); got != want || (err == nil) != (want != "") {
			t.Errorf("%q: %q, %v", content, got, err)
		}
	}
}

// A token is accepted exactly if a client can send it. The error names the file, and does not contain the token.
func TestTokensThatCannotBeSentAreRejected(t *testing.T) {
	t.Parallel()
	given := make(chan string, 1)
	server := httptest.NewServer(http.HandlerFunc(func(_ http.ResponseWriter, r *http.Request) { given <- r.Header.Get("Authorization") }))
	t.Cleanup(server.Close)
	arrives := func(token string) bool {
		r, err := http.NewRequest(http.MethodGet, server.URL, nil)
		if err != nil {
			t.Fatal(err)
		}
		r.Header.Set("Authorization", "Bearer "+token)
		resp, err := server.Client().Do(r)
		if err != nil {
			return false
		}
		resp.Body.Close()
		return resp.StatusCode == http.StatusOK && <-given == "Bearer "+token
	}
	file := filepath.Join(t.TempDir(), "token")
	for content, want := range map[string]string{
		"s3cret\n": "", "two words\r\n": "", " s3cret": "", "a\tb": "", "größe": "", "\ufeffs3cret": "",
		"s3cret\nother\n": "has a line break", "\ns3cret": "has a line break", "s3cret\r\n\r\nother": "has a line break", "a\rb": "has a line break",
		"s3cret\x00": "has a control character", "a\x7fb": "has a control character", "s3cret \n": "ends with a space", "s3cret\t": "ends with a space",
	} {
		if err := os.WriteFile(file, []byte(content), 0o600); err != nil {
			t.Fatal(err)
		}
		secret, _ := ReadSecret(file)
		token, err := ReadToken(file)
		switch sent := arrives(secret); {
		case sent != (err == nil), sent != (want == ""):
			t.Errorf("%q: %v, sent: %t", content, err, sent)
		case sent && token != secret:
			t.Errorf("%q: %q", content, token)
		case !sent && (!strings.HasPrefix(err.Error(), "the token in "+file+" "+want) || token != "" || strings.Contains(err.Error(), secret)):
			t.Errorf("%q: %q, %v", content, token, err)
		}
	}
}
