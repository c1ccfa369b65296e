package inspect

import (
	"cmp"
	"context"
	"fmt"
	"maps"
	"slices"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/internal/finding"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/fleet"
	"usercast/transport/redis/internal/topology"
)

const (
	// markersWithin is a little more than the maximum time between two markers of a hub.
	markersWithin = 11 * time.Second
	// maxShownHubs limits the report.
	maxShownHubs = 20
	// maxMarkers limits the memory for forged markers.
	maxMarkers = 1000
)

// A Fleet receives the markers of hubs in the background, from the start of an Inspection on. It ends when as many hubs
// as Redis has subscribers of the control channel have published one, after 11 s, or when the context of the
// Inspection ends.
type Fleet struct {
	in       *inspector
	patience time.Duration
	done     chan struct{} // closed at its end

	// Set before it begins.
	subscribers int    // clients that may be hubs; negative: unknown
	channel     string // that they are subscribed to
	runID       string // of the server process where they are; "": unknown

	// Set at its end.
	newest map[string]fleet.Marker // by the process of the hub
	denied error                   // the reply to SUBSCRIBE
	err    error                   // why the connection ended early
}

// receiveMarkers begins to receive markers. It returns nil if Redis does not have a subscriber that can be a hub.
func (i *inspector) receiveMarkers(ctx context.Context) (*Fleet, error) {
	f := &Fleet{in: i, patience: cmp.Or(i.markerPatience, markersWithin), done: make(chan struct{}), newest: make(map[string]fleet.Marker)}
	if err := f.countSubscribers(ctx); err != nil || f.subscribers == 0 {
		return nil, err
	}
	go func() {
		defer close(f.done)
		f.receive(ctx)
	}()
	return f, nil
}

// countSubscribers counts the clients that may be hubs: the subscribers of the control channel, or, if the user is not
// allowed to run PUBSUB, those of the users' channels, which PUBLISH counts. In a failing cluster, hubs may use any node,
// so their number is unknown.
func (f *Fleet) countSubscribers(ctx context.Context) error {
	i := f.in
	user, err := i.Channels.Name(hub.User(unknown+i.token), "")
	if err != nil {
		return err
	}
	return i.tryNodes(func() error { return i.server.NewConn(ctx, i.nearHubs(), f.countAt(user)).Use() })
}

// countAt returns a question that counts the subscribers of one node. user is the channel of a user without a stream.
func (f *Fleet) countAt(user string) func(context.Context, *goredis.Conn) error {
	i := f.in
	ignore := func(acl.Permission, error) {}
	return func(ctx context.Context, cn *goredis.Conn) error {
		info, err := topology.Info(ctx, cn, "server", ignore)
		if err != nil {
			return err
		}
		f.runID = topology.InfoField(info, "run_id")
		if i.state == "fail" {
			f.subscribers = -1
			return nil
		}
		counts, err := cn.PubSubNumSub(ctx, i.ControlChannel).Result()
		if f.subscribers, f.channel = int(counts[i.ControlChannel]), i.ControlChannel; err == nil {
			return nil
		}
		if err := acl.Optional(err, acl.PermissionPubSub, ignore); err != nil {
			return err
		}
		receivers, err := cn.Publish(ctx, user, i.token).Result()
		if f.subscribers, f.channel = int(receivers), acl.Pattern(i.Channels.Users); err == nil {
			return nil
		}
		f.subscribers = -1
		return acl.Optional(err, acl.PermissionPublish(f.channel, false), ignore)
	}
}

// nearHubs is the server to which hubs subscribe.
func (i *inspector) nearHubs() topology.Target { return topology.Target{Prefer: i.ControlChannel} }

// receive receives markers until the end.
func (f *Fleet) receive(ctx context.Context) {
	ctx, cancel := context.WithTimeout(ctx, f.patience)
	defer cancel()
	conn := f.in.server.NewConn(ctx, f.in.nearHubs(), func(ctx context.Context, cn *goredis.Conn) error {
		return acl.Optional(cn.ClientSetName(ctx, topology.ClientName).Err(), acl.PermissionName, func(acl.Permission, error) {})
	})
	defer conn.Close()
	err := f.in.tryNodes(func() error { return conn.Subscribe(f.in.ControlChannel) })
	for err == nil && !f.complete() {
		var received any
		if received, err = conn.Receive(); err == nil {
			if m, ok := received.(*goredis.Message); ok {
				f.add(m.Payload)
			}
		}
	}
	switch {
	case ctx.Err() != nil: // the time is over
	case acl.IsReply(err) && !goredis.IsAuthError(err):
		f.denied = err
	default:
		f.err = err
	}
}

func (f *Fleet) complete() bool { return f.subscribers >= 0 && f.hubsHere() >= f.subscribers }

// hubsHere returns how many hubs have published a marker that may be subscribed to the server where subscribers were
// counted. A replica also forwards the markers of hubs at its primary.
func (f *Fleet) hubsHere() (n int) {
	for _, mk := range f.newest {
		if !isUnderstood(mk) || f.runID == "" || mk.RunID == f.runID {
			n++
		}
	}
	return n
}

// add adds a marker, and ignores control commands.
func (f *Fleet) add(payload string) {
	mk, err := fleet.ParseMarker(payload)
	if err != nil {
		return
	}
	process, _, _ := strings.Cut(mk.From, ".")
	if _, known := f.newest[process]; known || len(f.newest) < maxMarkers {
		f.newest[process] = mk
	}
}

// Done returns a channel that is closed when Report does not have to wait.
func (f *Fleet) Done() <-chan struct{} { return f.done }

// Report waits until markers have been received, and reports the hubs that have published them.
func (f *Fleet) Report(report func(Finding)) {
	<-f.done
	i := *f.in
	i.report = report
	switch {
	case f.err != nil:
		i.broken(f.err)
		return
	case f.denied != nil:
		i.report.Note("fleet-hubs", "", "hubs could not be counted, because %s cannot be subscribed to", i.ControlChannel)
		return
	}
	markers := slices.SortedFunc(maps.Values(f.newest), func(a, b fleet.Marker) int { return cmp.Compare(a.Hub.Name, b.Hub.Name) })
	if len(markers) > 0 {
		i.report.OK("fleet-hubs", "%s: %s", hubsPublish(len(markers)), namesOf(markers))
	}
	f.reportSilent(&i)
	reportNames(&i, markers)
	reportVersions(&i, markers)
	reportChannels(&i, markers)
	f.reportServers(&i, markers)
}

func hubsPublish(n int) string {
	if n == 1 {
		return "1 hub publishes markers"
	}
	return fmt.Sprintf("%d hubs publish markers", n)
}

// reportSilent reports subscribers of the control channel that have not published a marker.
func (f *Fleet) reportSilent(i *inspector) {
	hubs := f.hubsHere()
	switch {
	case f.subscribers < 0 && len(f.newest) == 0:
		i.report.Note("fleet-hubs", "", "no hub published a marker within %v", f.patience)
	case hubs < f.subscribers:
		i.report.Warn("fleet-markers", "replace hubs of older versions, and grant hubs the permissions that their log names as missing; ignore this if other programs are subscribed",
			"%d of %d subscribers of %s did not publish a marker within %v: a page that moves to or from such a hub may receive a gap", f.subscribers-hubs, f.subscribers, f.channel, f.patience)
	}
}

func reportNames(i *inspector, markers []fleet.Marker) {
	hubs := make(map[string]int)
	for _, mk := range markers {
		if mk.Hub.Name != "" {
			hubs[mk.Hub.Name]++
		}
	}
	var parts []string
	for _, name := range slices.Sorted(maps.Keys(hubs)) {
		if n := hubs[name]; n > 1 {
			parts = append(parts, fmt.Sprintf("%s (%d hubs)", finding.Name(name), n))
		}
	}
	if len(parts) > 0 {
		i.report.Note("fleet-names", "use another --name for each hub; ignore this if a hub was just restarted",
			"several hubs have the same name: %s", listed(parts))
	}
}

func reportVersions(i *inspector, markers []fleet.Marker) {
	versions := grouped(markers, func(mk fleet.Marker) string { return mk.Hub.Version })
	if len(versions) > 1 {
		i.report.Warn("fleet-versions", "after a deploy, check that all hubs were replaced", "hubs run different versions: %s", listed(versions))
	}
}

func reportChannels(i *inspector, markers []fleet.Marker) {
	own := i.Channels.Patterns()
	others := slices.DeleteFunc(slices.Clone(markers), func(mk fleet.Marker) bool {
		return !isUnderstood(mk) || slices.Equal(mk.Patterns, own)
	})
	if len(others) == 0 {
		return
	}
	do := "use the same --group-prefix for all hubs of a fleet, and for this command"
	users := acl.Pattern(i.Channels.Users)
	if slices.ContainsFunc(others, func(mk fleet.Marker) bool { return !slices.Contains(mk.Patterns, users) }) {
		do = "use the same --channel-prefix and --group-prefix for all hubs of a fleet, and another --control-channel for each fleet"
	}
	i.report.Warn("fleet-channels", do, "hubs are subscribed to other channels than %s: %s: a page that moves between hubs with different channels receives a gap",
		strings.Join(own, " "), listed(grouped(others, func(mk fleet.Marker) string { return strings.Join(mk.Patterns, " ") })))
}

// reportServers reports hubs that are subscribed to different servers. The first one is that of check, if it is known.
func (f *Fleet) reportServers(i *inspector, markers []fleet.Marker) {
	servers := make(map[string][]fleet.Marker) // by run_id
	for _, mk := range markers {
		if isUnderstood(mk) {
			servers[mk.RunID] = append(servers[mk.RunID], mk)
		}
	}
	var parts []string
	if here := servers[f.runID]; len(here) > 0 {
		parts = append(parts, "this one ("+namesOf(here)+")")
		delete(servers, f.runID)
	}
	for _, run := range slices.Sorted(maps.Keys(servers)) {
		which := "another one"
		if len(parts) == 0 && f.runID == "" {
			which = "one"
		}
		parts = append(parts, which+" ("+namesOf(servers[run])+")")
	}
	const advice = "use the same --redis for all hubs of a fleet: the address of one primary, or of its Sentinels or cluster nodes"
	switch {
	case len(parts) > 1:
		i.report.Warn("fleet-servers", advice, "hubs are subscribed to different Redis servers: %s: a page that moves between them receives a gap", listed(parts))
	case len(servers) > 0 && f.runID != "":
		i.report.Warn("fleet-servers", advice, "hubs are subscribed to another Redis server than this one: %s", namesOf(markers))
	}
}

// grouped returns the names of the hubs with each key, sorted by key.
func grouped(markers []fleet.Marker, key func(fleet.Marker) string) (groups []string) {
	hubs := make(map[string][]fleet.Marker)
	for _, mk := range markers {
		hubs[key(mk)] = append(hubs[key(mk)], mk)
	}
	for _, k := range slices.Sorted(maps.Keys(hubs)) {
		groups = append(groups, finding.Name(k)+" ("+namesOf(hubs[k])+")")
	}
	return groups
}

// listed joins the first parts of a list with commas.
func listed(parts []string) string { return strings.Join(parts[:min(len(parts), maxShownHubs)], ", ") }

// isUnderstood reports whether a marker has a version that this program knows.
func isUnderstood(mk fleet.Marker) bool { return mk.RunID != "" }

// namesOf returns the names of hubs, separated by commas.
func namesOf(markers []fleet.Marker) string {
	var names []string
	for _, mk := range markers[:min(len(markers), maxShownHubs)] {
		names = append(names, finding.Name(cmp.Or(mk.Hub.Name, "(unnamed)")))
	}
	if more := len(markers) - len(names); more > 0 {
		names = append(names, fmt.Sprintf("%d more", more))
	}
	return strings.Join(names, ", ")
}
