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

// inspectConfig reports settings that serve would reject, and settings that it would accept although they are risky. It
// returns the Redis servers whose URLs are valid.
func inspectConfig(c *app.HubConfig, p Program, report finding.Report) []*redis.Server {
	var errs flags.Errors
	servers := c.Check(&errs)
	for _, err := range errs.List() {
		report.Fail("config", "correct it: serve refuses to start with this setting", "%v", err)
	}
	if errs.Err() == nil {
		report.OK("config", "--auth %s, --feed %s, streams at %s", c.Auth, c.Feed, c.Path)
	}
	inspectEnvironment(p, report)
	for _, s := range servers {
		if s.Insecure() {
			report.Warn("config-redis-verify", "use --redis-tls-ca <CA file> and remove skip_verify", "the certificate of %s is not verified: an attacker on the network path can read and inject messages", s.Name())
		}
	}
	for _, u := range c.UnusedByFeed() {
		report.Warn("config-unused", u.Hint, "%s is ignored with --feed %s", u.Flag, c.Feed)
	}
	if c.Feed == app.FeedPubSub && len(servers) > 1 {
		report.Note("config-fleet", "", "with several --redis, hubs do not publish markers: a page that changes hubs receives a gap")
	}
	inspectAuth(c, report)
	inspectListeners(c, report)
	inspectTimes(c, report)
	inspectSizes(c, report)
	inspectPorts(c, report)
	return servers
}

// kubernetesVariable matches the variables that Kubernetes sets in each container for a service that is named usercast.
var kubernetesVariable = regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT(_[0-9]+_(TCP|UDP|SCTP).*)?$`)

// inspectEnvironment reports unknown variables named USERCAST_…. An unknown flag on the command line is an error, but
// serve ignores an unknown variable.
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
		report.Warn("config-variable", "correct the name or remove it; "+p.Invocation+" serve --help lists all variables", "%s in the environment does not match any flag and is ignored", name)
	}
}

// inspectTimes reports durations that do not fit the timeouts of common proxies and platforms.
func inspectTimes(c *app.HubConfig, report finding.Report) {
	if d := c.PingInterval.T; d >= 55*time.Second {
		report.Warn("config-ping-interval", "use --ping-interval 15s", "--ping-interval %v: Heroku closes idle streams after 55 s; nginx, HAProxy and AWS load balancers after 60 s", d)
	}
	if d := c.MaxAge.T; d > 0 && d < 30*time.Second {
		report.Warn("config-max-age", "use --max-age 5m or more", "--max-age %v: every page reconnects at this interval", d)
	}
	if most := flags.Sum(c.DrainDelay.T, c.Drain.T, c.WriteTimeout.T); most > 30*time.Second {
		report.Note("config-drain", fmt.Sprintf("set terminationGracePeriodSeconds, TimeoutStopSec or stop_grace_period above %v", most),
			"a graceful shutdown can take %v, but Kubernetes kills the process after 30 s by default", most)
	}
	if c.Feed == app.FeedPubSub && (c.HistoryPerUser.T == 0 || c.HistoryAge.T == 0 || c.HistoryBytes.T == 0) {
		report.Note("config-history", "set --history-per-user, --history-age and --history-bytes above 0",
			"no history is kept: a page that was disconnected briefly receives a gap and has to refetch")
	}
}
