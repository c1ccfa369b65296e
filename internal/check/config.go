package check

import (
	"fmt"
	"os"
	"regexp"
	"slices"
	"strings"
	"time"

	"usercast/internal/app"
	"usercast/internal/finding"
	"usercast/internal/flags"
	"usercast/transport/redis"
)

// inspectConfig reports what serve would reject, and what it would accept although it is risky. It
// returns the Redis that could be read.
func inspectConfig(c *app.HubConfig, p Program, report finding.Report) []*redis.Server {
	var errs flags.Errors
	servers := c.Check(&errs)
	for _, err := range errs.List() {
		report.Fail("config", "correct it: serve does not start with it", "%v", err)
	}
	if errs.Err() == nil {
		report.OK("config", "--auth %s, --feed %s, streams at %s", c.Auth, c.Feed, c.Path)
	}
	inspectEnvironment(p, report)
	for _, s := range servers {
		if s.Insecure() {
			report.Warn("config-redis-verify", "--redis-tls-ca <PEM file of its authority>, without skip_verify", "the certificate of %s is not verified: whoever stands between reads and sends messages", s.Name())
		}
	}
	for _, u := range c.UnusedByFeed() {
		report.Warn("config-unused", u.Hint, "%s has no effect with --feed %s", u.Flag, c.Feed)
	}
	inspectAuth(c, report)
	inspectListeners(c, report)
	inspectTimes(c, report)
	inspectSizes(c, report)
	inspectPorts(c, report)
	return servers
}

// kubernetesVariable is one of those that Kubernetes gives each container for a service that
// is named usercast.
var kubernetesVariable = regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT(_[0-9]+_(TCP|UDP|SCTP).*)?$`)

// inspectEnvironment reports variables named USERCAST_… that are not read: an unknown flag on the command
// line is an error, and an unknown variable would be overlooked.
func inspectEnvironment(p Program, report finding.Report) {
	var unknown []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, flags.EnvPrefix) && name != flags.JWTSecretVariable && !slices.Contains(p.Variables, name) && !kubernetesVariable.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		report.Warn("config-variable", "correct its name, or remove it; "+p.Invocation+" serve --help has all", "%s in the environment is no flag, and does nothing", name)
	}
}

// inspectTimes reports times that proxies and platforms do not wait for.
func inspectTimes(c *app.HubConfig, report finding.Report) {
	if d := c.PingInterval.T; d >= 55*time.Second {
		report.Warn("config-ping-interval", "--ping-interval 15s", "--ping-interval %v: Heroku cuts a silent stream after 55 s, nginx, HAProxy and the balancers of AWS after 60", d)
	}
	if d := c.MaxAge.T; d > 0 && d < 30*time.Second {
		report.Warn("config-max-age", "--max-age 5m or more", "--max-age %v: every page comes back that often", d)
	}
	if most := flags.Sum(c.DrainDelay.T, c.Drain.T, c.WriteTimeout.T); most > 30*time.Second {
		report.Note("config-drain", fmt.Sprintf("terminationGracePeriodSeconds, TimeoutStopSec or stop_grace_period above %v", most), "the hub may take %v to stop, and Kubernetes kills after 30 s", most)
	}
	if c.Feed == app.FeedPubSub && (c.HistoryPerUser.T == 0 || c.HistoryAge.T == 0 || c.HistoryBytes.T == 0) {
		report.Note("config-history", "--history-per-user, --history-age and --history-bytes above 0", "no history is kept: a page that was away for a moment hears of a gap, and fetches anew")
	}
}
