package flags

import (
	"os"
	"path/filepath"
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
