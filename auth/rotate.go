package auth

import (
	"context"
	"encoding/pem"
	"errors"
	"log/slog"
	"reflect"
	"slices"
)

// minSecret is what HS256 wants (RFC 7518, section 3.2).
const minSecret = 32 // bytes

// JWTKeys are what JWTConfig calls by the same names.
type JWTKeys struct {
	Secret       []byte
	OtherSecrets [][]byte
	KeyPEM       []byte
}

// SetKeys replaces the keys for all tokens to come: a token signed with one that is not
// among them is refused from now on. Keys that cannot be read, or are of another kind than
// those before, are an error and change nothing. With a JWKSURL there are none to set.
func (j *JWT) SetKeys(k JWTKeys) error {
	if j.jwks != nil || len(k.Secret) > 0 && len(k.KeyPEM) > 0 || (len(j.cfg.Secret) > 0) != (len(k.Secret) > 0) {
		return errors.New("these are keys of another kind than those before")
	}
	if len(k.Secret) == 0 {
		keys, err := parsePEM(k.KeyPEM)
		if err == nil {
			j.keys.Store(&keys)
		}
		return err
	}
	var keys []verifyKey
	for _, secret := range append([][]byte{k.Secret}, k.OtherSecrets...) {
		// Whoever knows a public key, and that is everybody, could sign with it.
		if block, _ := pem.Decode(secret); block != nil {
			return errors.New("the secret is a key in PEM: give that as a key file")
		}
		if len(secret) == 0 {
			return errors.New("a secret is empty")
		}
		keys = append(keys, verifyKey{algs: []string{"HS256", "HS384", "HS512"}, key: slices.Clone(secret)})
	}
	for _, k := range keys {
		if n := len(k.key.([]byte)); n < minSecret {
			j.cfg.Logger.Warn("the jwt secret is short and may be guessed", slog.Int("bytes", n), slog.Int("wanted", minSecret))
		}
	}
	j.keys.Store(&keys)
	return nil
}

// Refetch fetches the set at JWKSURL now and reports whether its keys are others than
// before. While it cannot be fetched, those count that are known. Without a JWKSURL it
// does nothing.
func (j *JWT) Refetch(ctx context.Context) (changed bool, err error) {
	if j.jwks == nil {
		return false, nil
	}
	return j.jwks.refetch(ctx)
}

func (j *jwks) refetch(ctx context.Context) (changed bool, err error) {
	j.mu.Lock()
	before := j.keys
	j.mu.Unlock()
	// A fetch that was under way may have been answered before the set was changed.
	for again := false; ; again = true {
		j.mu.Lock()
		joined := j.flight != nil
		f := j.fly(false)
		j.mu.Unlock()
		if f == nil {
			return false, errNoKeys
		}
		select {
		case <-f.done:
		case <-ctx.Done():
			return false, errNoKeys
		}
		if f.err != nil {
			return false, f.err
		}
		if again || !joined {
			break
		}
	}
	j.mu.Lock()
	defer j.mu.Unlock()
	return !reflect.DeepEqual(before, j.keys), nil
}
