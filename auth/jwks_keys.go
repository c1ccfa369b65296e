package auth

import (
	"encoding/json"
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"github.com/MicahParks/jwkset"
)

// parseJWKS returns the usable keys of a set, and the ignored ones with the reason: one unusable key must not make
// the others unusable (RFC 7517, section 5). It does not read members that are not needed for verification. If the set
// does not contain a usable key, it returns an error.
//
// Google also publishes keys as an object of PEM certificates or public keys by kid. It documents only this form for
// Firebase, so it is accepted, too.
func parseJWKS(body []byte) (keys []verifyKey, ignored []IgnoredKey, err error) {
	var set struct {
		Keys []json.RawMessage `json:"keys"`
	}
	var byID map[string]string // PEM
	if json.Unmarshal(body, &set) != nil || set.Keys == nil {
		if byID = pemByID(body); byID == nil {
			return nil, nil, notAKeySet(body)
		}
	}
	add := func(key verifyKey, err error) {
		if err != nil {
			ignored = append(ignored, IgnoredKey{clip(key.id), err.Error()})
		} else {
			keys = append(keys, key)
		}
	}
	for _, raw := range set.Keys {
		add(parseJWK(raw))
	}
	for _, id := range slices.Sorted(maps.Keys(byID)) {
		found, err := parsePEM([]byte(byID[id]))
		if err != nil { // not returned, because it is about a key file
			add(verifyKey{id: id}, errors.New("not a usable certificate or public key in PEM"))
		}
		for _, key := range found {
			key.id = id
			add(key, nil)
		}
	}
	if len(keys) == 0 {
		return nil, ignored, errors.New("the JWK set does not contain a usable key")
	}
	return keys, ignored, nil
}

// pemByID returns the members of an object of PEM texts, or nil if the body is not one.
func pemByID(body []byte) (byID map[string]string) {
	if json.Unmarshal(body, &byID) != nil {
		return nil
	}
	for _, text := range byID {
		if strings.HasPrefix(text, "-----BEGIN ") {
			return byID
		}
	}
	return nil
}

// notAKeySet describes a response that is not a key set.
func notAKeySet(body []byte) error {
	var configuration struct {
		URL string `json:"jwks_uri"`
	}
	if json.Unmarshal(body, &configuration) == nil && configuration.URL != "" {
		return fmt.Errorf("the response is an OpenID configuration; use its jwks_uri: %s", clip(configuration.URL))
	}
	return errors.New("the response is not a JWK set")
}

// parseJWK parses one key. If it returns an error, only the id of the key is set. The error does not contain any part
// of a private or symmetric key.
func parseJWK(raw json.RawMessage) (verifyKey, error) {
	var m struct {
		Kid, Alg, Use string
		Kty           jwkset.KTY
		Crv           jwkset.CRV
		X, Y, N, E    string
		D             any // only in a private key, which must not be published
	}
	if json.Unmarshal(raw, &m) != nil {
		return verifyKey{id: m.Kid}, errors.New("not a JSON object with string members")
	}
	out := verifyKey{id: m.Kid}
	switch {
	case m.D != nil:
		return out, errors.New("private key")
	case m.Use != "" && m.Use != "sig":
		return out, fmt.Errorf("use is %q, not \"sig\"", clip(m.Use))
	}
	jwk, err := jwkset.NewJWKFromMarshal(jwkset.JWKMarshal{KTY: m.Kty, CRV: m.Crv, X: m.X, Y: m.Y, N: m.N, E: m.E},
		jwkset.JWKMarshalOptions{}, jwkset.JWKValidateOptions{})
	if err != nil { // not returned, because it may quote the key
		return out, unreadable(m.Kty, m.Crv)
	}
	algs, err := algsOf(jwk.Key())
	switch alg := algorithm(m.Alg); {
	case err != nil:
		return out, err
	case alg != "" && !slices.Contains(algs, alg):
		return out, fmt.Errorf("alg %q does not match the key type", clip(m.Alg))
	case alg != "":
		algs = []string{alg}
	}
	out.algs, out.key = algs, jwk.Key()
	return out, nil
}

// unreadable describes a key that cannot be parsed.
func unreadable(kty jwkset.KTY, crv jwkset.CRV) error {
	const supported = "(supported: RSA, EC, OKP)"
	switch kty {
	case "":
		return errors.New("the key does not have a type (kty)")
	case "oct":
		return errors.New("unsupported key type \"oct\": a key set must contain public keys " + supported)
	case jwkset.KtyRSA:
		return errors.New("the RSA key is incomplete or invalid; it needs n and e")
	case jwkset.KtyEC, jwkset.KtyOKP:
		if crv == "" {
			return fmt.Errorf("the %s key does not have a curve (crv)", kty)
		}
		return fmt.Errorf("the %s key with curve %q is incomplete, invalid, or on an unsupported curve", kty, clip(string(crv)))
	}
	return fmt.Errorf("unsupported key type %q %s", clip(string(kty)), supported)
}

// errNotInSet rejects a token that is signed with a key that is not in the set.
var errNotInSet = WithHint(unauthorized("the token is signed with a key that is not in the key set"),
	"add the key to the key set at --jwt-jwks-url, or set --jwt-jwks-url to the key set of the issuer")

// maxTried is how many keys are tried for one token.
const maxTried = 8

// find returns the keys with this id, and those for alg that do not have an id. Without an id, it returns all keys for
// alg: a provider that does not publish ids may be replacing its key.
func find(keys []verifyKey, kid string, hasKid bool, alg string) ([]verifyKey, error) {
	found := matching(keys, kid, hasKid, alg)
	if len(found) == 0 {
		return nil, errNotInSet
	}
	return found[:min(len(found), maxTried)], nil
}

func matching(keys []verifyKey, kid string, hasKid bool, alg string) (found []verifyKey) {
	for _, k := range keys {
		if hasKid && k.id == kid || (!hasKid || k.id == "") && slices.Contains(k.algs, alg) {
			found = append(found, k)
		}
	}
	return found
}
