package auth

import (
	"encoding/pem"
	"errors"
	"fmt"
	"slices"
)

// minSecretBytes is the minimum for HS256 (RFC 7518, section 3.2): anyone with one token can try to guess a shorter secret.
// It applies to HS384 and HS512, too. Their own minimums, 48 and 64 bytes, are not required, because 32 random bytes cannot
// be guessed.
const minSecretBytes = 32

// JWTKeys are the fields of JWTConfig with the same names.
type JWTKeys struct {
	Secret       []byte
	OtherSecrets [][]byte
	KeyPEM       []byte
}

// SetKeys replaces the keys. From then on, tokens that are signed with another key are rejected. If SetKeys returns an
// error, the current keys stay in use. It does so if a key cannot be parsed, if a secret is too short, if secrets would be
// replaced by public keys or vice versa, and if the JWT was created with JWKSURLs.
func (j *JWT) SetKeys(k JWTKeys) error {
	if len(j.sets) > 0 || len(k.Secret) > 0 && len(k.KeyPEM) > 0 || (len(j.cfg.Secret) > 0) != (len(k.Secret) > 0) {
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
		if n := len(secret); n < minSecretBytes {
			return fmt.Errorf("the secret has only %d bytes and can be guessed; use at least %d random bytes, such as the output of: openssl rand -base64 48", n, minSecretBytes)
		}
		keys = append(keys, verifyKey{algs: []string{"HS256", "HS384", "HS512"}, key: slices.Clone(secret)})
	}
	j.keys.Store(&keys)
	return nil
}
