package main

import (
	"fmt"
	"os"
	"path"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/alecthomas/kong"
	"github.com/dustin/go-humanize"

	"usercast/internal/advice"
	"usercast/internal/app"
	"usercast/internal/flags"
	"usercast/transport/redis"
)

// configuration tells what serve would refuse, and what it would take though it is risky. It
// returns the Redis that could be read.
func (c *checkCmd) configuration(tell advice.Tell, kctx *kong.Context) []*redis.Server {
	var errs flags.Errors
	servers := c.Check(&errs)
	for _, fault := range errs.List() {
		tell.Fail("config", "correct it: serve does not start with it", "%v", fault)
	}
	if len(errs.List()) == 0 {
		tell.OK("config", "--auth %s, --feed %s, streams at %s", c.Auth, c.Feed, c.Path)
	}
	unknownVariables(tell, kctx)
	for _, s := range servers {
		if s.Insecure() {
			tell.Warn("config-redis-verify", "--redis-tls-ca <PEM file of its authority>, without skip_verify", "the certificate of %s is not verified: whoever stands between reads and sends messages", s.Name())
		}
	}
	for _, u := range c.UnusedByFeed() {
		tell.Warn("config-unused", u.Hint, "%s has no effect with --feed %s", u.Flag, c.Feed)
	}
	c.riskyAuth(tell)
	c.riskyListeners(tell)
	c.riskyTimes(tell)
	c.riskySizes(tell)
	c.ports(tell)
	return servers
}

// kubernetesVariable is one of those that Kubernetes gives each container for a service that
// is named usercast.
var kubernetesVariable = regexp.MustCompile(`_SERVICE_(HOST|PORT)|_PORT(_[0-9]+_(TCP|UDP|SCTP).*)?$`)

// unknownVariables finds USERCAST_… that nothing reads: a flag that is misspelt on the command
// line is refused, one in the environment would be overlooked.
func unknownVariables(tell advice.Tell, kctx *kong.Context) {
	known := map[string]bool{flags.JWTSecretVariable: true}
	for _, command := range kctx.Model.Children {
		for _, flag := range command.Flags {
			for _, name := range flag.Envs {
				known[name] = true
			}
		}
	}
	var unknown []string
	for _, variable := range os.Environ() {
		name, _, _ := strings.Cut(variable, "=")
		if strings.HasPrefix(name, "USERCAST_") && !known[name] && !kubernetesVariable.MatchString(name) {
			unknown = append(unknown, name)
		}
	}
	slices.Sort(unknown)
	for _, name := range unknown {
		tell.Warn("config-variable", "correct its name, or remove it; "+invocation()+" serve --help has all", "%s in the environment is no flag, and does nothing", name)
	}
}

// riskyListeners looks at who can reach what.
func (c *checkCmd) riskyListeners(tell advice.Tell) {
	if path.Clean(c.Path) != strings.TrimSuffix(c.Path, "/") {
		tell.Warn("config-path", "--path "+path.Clean(c.Path), "--path %s: browsers and proxies ask for %s instead", c.Path, path.Clean(c.Path))
	}
	if len(c.AllowOrigin) > 0 {
		tell.Note("config-origins", "serve pages and streams from one origin, through a proxy, or let pages open a closed stream again: docs/quickstart.md, Keep the stream open",
			"with pages of another origin (--allow-origin), Firefox closes an EventSource permanently when a reconnect is refused, as during a restart of the hub")
	}
	if c.AdminTokenFile == "" && !flags.IsLoopback(c.AdminListen) {
		tell.Note("config-admin", "--admin-token-file, and no way there from the net", "%s (--admin-listen) is open to other machines: they see metrics, and without a token none of them may use the API", c.AdminListen)
	}
	if c.TLSCert != "" {
		c.certificate(tell)
	}
}

// soonOver is how long before its end a certificate is worth a word: renewals are earlier.
const soonOver = 14 * 24 * time.Hour

func (c *checkCmd) certificate(tell advice.Tell) {
	pair, err := app.LoadCertificate(c.TLSCert, c.TLSKey)
	if err != nil || pair.Leaf == nil {
		return // a fault, and said
	}
	switch end := pair.Leaf.NotAfter; {
	case time.Now().After(end):
		tell.Fail("config-certificate", "renew it; the hub reads the files again by itself", "the certificate of --tls-cert ran out on %s", end.Format(time.DateOnly))
	case time.Until(end) < soonOver:
		tell.Warn("config-certificate", "renew it; the hub reads the files again by itself", "the certificate of --tls-cert runs out on %s", end.Format(time.DateOnly))
	default:
		tell.OK("config-certificate", "the certificate of --tls-cert is good until %s", end.Format(time.DateOnly))
	}
}

// riskyTimes looks at what proxies and platforms do not wait for.
func (c *checkCmd) riskyTimes(tell advice.Tell) {
	if d := c.PingInterval.T; d >= 55*time.Second {
		tell.Warn("config-ping-interval", "--ping-interval 15s", "--ping-interval %v: Heroku cuts a silent stream after 55 s, nginx, HAProxy and the balancers of AWS after 60", d)
	}
	if d := c.MaxAge.T; d > 0 && d < 30*time.Second {
		tell.Warn("config-max-age", "--max-age 5m or more", "--max-age %v: every page comes back that often", d)
	}
	if most := flags.Sum(c.DrainDelay.T, c.Drain.T, c.WriteTimeout.T); most > 30*time.Second {
		tell.Note("config-drain", fmt.Sprintf("terminationGracePeriodSeconds, TimeoutStopSec or stop_grace_period above %v", most), "the hub may take %v to stop, and Kubernetes kills after 30 s", most)
	}
	if c.Feed == app.FeedPubSub && (c.HistoryPerUser.T == 0 || c.HistoryAge.T == 0 || c.HistoryBytes.T == 0) {
		tell.Note("config-history", "--history-per-user, --history-age and --history-bytes above 0", "no history is kept: a page that was away for a moment hears of a gap, and fetches anew")
	}
}

// riskySizes looks at what has to fit into what.
func (c *checkCmd) riskySizes(tell advice.Tell) {
	size := func(n int64) string { return humanize.IBytes(uint64(n)) }
	payload, queue, total := int64(c.MaxPayload.T), int64(c.QueueBytes.T), int64(c.QueueTotalBytes.T)
	if payload > queue {
		tell.Warn("config-queue", "--queue-bytes of "+size(2*payload)+" or more", "a message of --max-payload (%s) does not fit into --queue-bytes (%s), and may end the streams that it is for", size(payload), size(queue))
	}
	if queue > total {
		tell.Warn("config-queue", "--queue-total-bytes above --queue-bytes", "--queue-bytes (%s) is more than --queue-total-bytes (%s) has for all streams together", size(queue), size(total))
	}
	streams, _ := app.DescriptorBudget()
	wanted := c.MaxClients.T
	switch {
	case wanted > streams && streams > 0:
		tell.Warn("config-descriptors", fmt.Sprintf("ulimit -n %d, LimitNOFILE= or ulimits: nofile", int64(wanted-streams)+int64(app.DescriptorLimit())), "--max-clients %d, and %d descriptors, as here, are enough for %d streams", wanted, app.DescriptorLimit(), streams)
	case wanted == flags.Auto && streams > 0:
		tell.OK("config-descriptors", "room for %d streams: the descriptor limit is %d here", streams, app.DescriptorLimit())
		wanted = streams
	}
	limit := memoryLimit()
	if limit == 0 {
		return
	}
	idle, full := c.MemoryBound(0), c.MemoryBound(max(wanted, 0))
	do := "--queue-total-bytes and --history-bytes to a third of it together, or more memory"
	switch {
	case idle > limit:
		tell.Warn("config-memory", do, "the hub may take %s with slow readers, and there are %s", size(idle), size(limit))
	case full > limit:
		tell.Note("config-memory", do+", or --max-clients", "the hub may take %s with %d streams and slow readers, and there are %s", size(full), wanted, size(limit))
	}
}
