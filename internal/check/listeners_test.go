package check

import (
	"slices"
	"strings"
	"testing"
	"time"

	"usercast/internal/app"
	"usercast/internal/certtest"
	"usercast/internal/finding"
)

func TestExpiryOfCertificatesIsReported(t *testing.T) {
	t.Parallel()
	ca := certtest.New(t, "CA")
	for _, test := range []struct {
		left  time.Duration
		level finding.Level
		text  string
	}{
		{-time.Hour, finding.Fail, " expired on "},
		{expiresSoon - time.Hour, finding.Warn, " expires on "},
		{expiresSoon + time.Hour, finding.OK, " is valid until "},
	} {
		cert, key := ca.IssueUntil(t, time.Now().Add(test.left), "client").Write(t, t.TempDir())
		var public, redis app.HubConfig
		public.TLSCert, public.TLSKey = cert, key
		redis.RedisTLSCert, redis.RedisTLSKey = cert, key
		for flag, config := range map[string]*app.HubConfig{"--tls-cert": &public, "--redis-tls-cert": &redis} {
			var found []finding.Finding
			inspectListeners(config, func(f finding.Finding) { found = append(found, f) })
			if !slices.ContainsFunc(found, func(f finding.Finding) bool {
				return f.Level == test.level && strings.Contains(f.What, "in "+flag+test.text)
			}) {
				t.Errorf("%s, %v left: %+v", flag, test.left, found)
			}
		}
	}
}
