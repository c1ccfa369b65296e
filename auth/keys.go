package auth

import (
	"crypto/ecdsa"
	"crypto/ed25519"
	"crypto/rsa"
	"crypto/x509"
	"encoding/pem"
	"errors"
	"fmt"
	"strings"
)

// A verifyKey is a key with the algorithms that may be used with it.
type verifyKey struct {
	id   string // kid; only in a JWK set
	algs []string
	key  any
}

// algorithm returns the name that is used here for alg: RFC 9864 replaces EdDSA by Ed25519.
func algorithm(alg string) string {
	if alg == "Ed25519" {
		return "EdDSA"
	}
	return alg
}

// publicAlgs are all algorithms of public keys.
var publicAlgs = []string{"RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"}

// algsOf returns the algorithms that a key can be used with. They depend on the type of the key, so that a public key is
// never used as an HMAC secret.
func algsOf(key any) ([]string, error) {
	switch k := key.(type) {
	case *rsa.PublicKey:
		if k.N.BitLen() < 2048 {
			return nil, errors.New("an RSA key with fewer than 2048 bits")
		}
		return publicAlgs[:6], nil
	case *ecdsa.PublicKey:
		switch k.Curve.Params().Name {
		case "P-256":
			return []string{"ES256"}, nil
		case "P-384":
			return []string{"ES384"}, nil
		case "P-521":
			return []string{"ES512"}, nil
		}
		return nil, errors.New("an EC key on an unsupported curve (supported: P-256, P-384, P-521)")
	case ed25519.PublicKey:
		return []string{"EdDSA"}, nil
	}
	return nil, errors.New("a key that is not RSA, EC or Ed25519")
}

// parsePEM returns the public keys in data.
func parsePEM(data []byte) ([]verifyKey, error) {
	var keys []verifyKey
	for {
		var block *pem.Block
		block, data = pem.Decode(data)
		if block == nil {
			break
		}
		var key any
		var err error
		switch {
		case strings.HasSuffix(block.Type, "PRIVATE KEY"):
			return nil, errors.New("the key file contains a private key; use the public key only")
		case block.Type == "PUBLIC KEY":
			key, err = x509.ParsePKIXPublicKey(block.Bytes)
		case block.Type == "RSA PUBLIC KEY":
			key, err = x509.ParsePKCS1PublicKey(block.Bytes)
		case block.Type == "CERTIFICATE":
			var cert *x509.Certificate
			if cert, err = x509.ParseCertificate(block.Bytes); err == nil {
				key = cert.PublicKey
			}
		default:
			err = errors.ErrUnsupported
		}
		if err != nil { // not returned, because it describes ASN.1
			return nil, fmt.Errorf("PEM block %.40q (number %d) is not a readable public key", block.Type, len(keys)+1)
		}
		algs, err := algsOf(key)
		if err != nil {
			return nil, fmt.Errorf("PEM block %.40q (number %d) is %w", block.Type, len(keys)+1, err)
		}
		keys = append(keys, verifyKey{algs: algs, key: key})
	}
	if len(keys) == 0 || len(keys) > 8 {
		return nil, fmt.Errorf("the key file contains %d PEM public keys; it must contain 1 to 8", len(keys))
	}
	return keys, nil
}
