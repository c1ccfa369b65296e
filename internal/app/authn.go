package app

import (
	"cmp"
	"fmt"
	"log/slog"
	"os"

	"usercast/auth"
	"usercast/hub"
	"usercast/internal/flags"
)

// An Authn authenticates the clients of an App. Its functions are safe for concurrent use. Only Authenticate is required.
type Authn struct {
	Authenticate auth.Authenticator
	Forget       func(user string)        // removes the cached results of a user
	Stats        func() auth.ForwardStats // returns statistics of the requests to the app
	Close        func()                   // rejects pending authentications temporarily; can be called several times

	jwt *auth.JWT // for replacing its keys; nil in other modes
}

// Open returns the authenticator. The config must have passed Check.
func (c *HubConfig) Open(log *slog.Logger) (Authn, error) {
	var a Authn
	groups := c.GroupPrefix != "" // otherwise groups are not read
	switch c.Auth {
	case AuthJWT:
		cfg := auth.JWTConfig{
			Secret:            c.keys.Secret,
			OtherSecrets:      c.keys.OtherSecrets,
			KeyPEM:            c.keys.KeyPEM,
			JWKSURLs:          c.JWTJWKSURL,
			Issuers:           c.JWTIssuer,
			Audiences:         c.JWTAudience,
			AuthorizedParties: c.JWTAuthorizedParty,
			UserClaim:         c.JWTClaim,
			Header:            c.JWTHeader,
			Cookie:            c.JWTCookie,
			Query:             c.JWTQuery,
			AllowNoExpiry:     c.JWTAllowNoExp,
			ExpiredGrace:      cmp.Or(c.JWTExpiredGrace.T, hub.Off),
			Timeout:           c.AuthTimeout.T,
			Logger:            log,
		}
		if groups {
			cfg.GroupsClaim = c.JWTGroupsClaim
		}
		j, err := auth.NewJWT(cfg)
		if err != nil {
			return a, flags.UsageError{Err: fmt.Errorf("--auth jwt: %w", err)}
		}
		a.Authenticate, a.Close, a.jwt = j.Authenticate, j.Close, j
	case AuthForward:
		f := auth.NewForward(auth.ForwardConfig{
			URL:         c.forwardURL,
			Host:        c.ForwardHost,
			Headers:     c.ForwardHeader,
			UserHeader:  c.UserHeader,
			Groups:      groups,
			Timeout:     c.AuthTimeout.T,
			Cache:       cmp.Or(c.AuthCache.T, hub.Off),
			Concurrency: c.AuthConcurrency.T,
			Proxies:     c.proxies,
			Logger:      log,
		})
		a.Authenticate, a.Forget, a.Close, a.Stats = f.Authenticate, f.Forget, f.Close, f.Stats
	case AuthHeader:
		a.Authenticate = auth.Header(c.UserHeader, c.proxies, groups)
	case AuthInsecure:
		a.Authenticate = c.Insecure()
	}
	return a, nil
}

// Insecure returns the authenticator of --auth insecure, which also serves dev.
func (c *Config) Insecure() auth.Authenticator {
	if c.GroupPrefix != "" {
		return auth.InsecureGroups
	}
	return auth.Insecure
}

// readKeys reads the secrets or the public keys, unless --jwt-jwks-url is set.
func (c *AuthConfig) readKeys(settings *flags.EnvFile) (keys auth.JWTKeys, err error) {
	for i, file := range c.JWTSecretFile {
		secret, err := flags.ReadSecret(file)
		switch {
		case err != nil:
			return auth.JWTKeys{}, err
		case i == 0:
			keys.Secret = []byte(secret)
		default:
			keys.OtherSecrets = append(keys.OtherSecrets, []byte(secret))
		}
	}
	switch {
	case keys.Secret != nil:
	case c.JWTKeyFile != "":
		keys.KeyPEM, err = os.ReadFile(c.JWTKeyFile)
	default:
		keys.Secret = []byte(settings.Variable(flags.JWTSecretVariable))
	}
	return keys, err
}
