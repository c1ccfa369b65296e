package auth

import (
	"encoding/pem"
	"errors"
	"log/slog"
	"slices"
)

// minSecretBytes is the minimum for HS256 (RFC 7518, section 3.2).
const minSecretBytes = 32

// JWTKeys are the fields of JWTConfig with the same names.
type JWTKeys struct {
	Secret       []byte
	OtherSecrets [][]byte
	KeyPEM       []byte
}

// SetKeys replaces the keys. From then on, tokens that are signed with another key are rejected. If SetKeys returns an
// error, the current keys stay in use. It does so if a key cannot be parsed, if secrets would be replaced by public keys
// or vice versa, and if the JWT was created with a JWKSURL.
func (j *JWT) SetKeys(k JWTKeys) error {
	if j.jwks != nil || len(k.Secret) > 0 && len(k.KeyPEM) > 0 || (len(j.cfg.Secret) > 0) != (len(k.Secret) > 0) {
		return errors.New("the new keys are of a different type than the current ones")
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
		// A public key is not secret: anyone could sign with it.
		if block, _ := pem.Decode(secret); block != nil {
			return errors.New("the secret is a PEM key; use --jwt-key-file for public keys")
		}
		if len(secret) == 0 {
			return errors.New("a secret is empty")
		}
		keys = append(keys, verifyKey{algs: []string{"HS256", "HS384", "HS512"}, key: slices.Clone(secret)})
	}
	for _, k := range keys {
		if n := len(k.key.([]byte)); n < minSecretBytes {
			j.cfg.Logger.Warn("jwt secret is short and can be guessed",
				slog.Int("bytes", n), slog.Int("min_bytes", minSecretBytes))
		}
	}
	j.keys.Store(&keys)
	return nil
}
