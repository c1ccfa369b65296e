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
// allowed to run PUBSUB, those of the users' channels, which PUBLISH counts.
func (f *Fleet) countSubscribers(ctx context.Context) error {
	i := f.in
	user, err := i.unknownChannel()
	if err != nil {
		return err
	}
	ignore := func(acl.Permission, error) {}
	return i.server.NewConn(ctx, i.nearHubs(), func(ctx context.Context, cn *goredis.Conn) error {
		counts, err := cn.PubSubNumSub(ctx, i.ControlChannel).Result()
		if f.subscribers, f.channel = int(counts[i.ControlChannel]), i.ControlChannel; err == nil {
			return nil
		}
		if err := acl.Optional(err, acl.PermissionPubSub, ignore); err != nil {
			return err
		}
		receivers, err := cn.Publish(ctx, user, i.token).Result()
		if f.subscribers, f.channel = int(receivers), acl.Pattern(i.ChannelPrefix); err == nil {
			return nil
		}
		f.subscribers = -1
		return acl.Optional(err, acl.PermissionPublish(f.channel), ignore)
	}).Use()
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
	err := conn.Subscribe(f.in.ControlChannel)
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

func (f *Fleet) complete() bool { return f.subscribers >= 0 && len(f.newest) >= f.subscribers }

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
	f.reportSilent(&i, len(markers))
	reportVersions(&i, markers)
	reportChannels(&i, markers)
	reportServers(&i, markers)
}

func hubsPublish(n int) string {
	if n == 1 {
		return "1 hub publishes markers"
	}
	return fmt.Sprintf("%d hubs publish markers", n)
}

// reportSilent reports subscribers of the control channel that have not published a marker.
func (f *Fleet) reportSilent(i *inspector, hubs int) {
	switch {
	case f.subscribers < 0 && hubs == 0:
		i.report.Note("fleet-hubs", "", "no hub published a marker within %v", f.patience)
	case hubs < f.subscribers:
		i.report.Warn("fleet-markers", "replace hubs of older versions, and grant hubs the permissions that their log names as missing; ignore this if other programs are subscribed",
			"%d of %d subscribers of %s did not publish a marker within %v: a page that moves to or from such a hub may receive a gap", f.subscribers-hubs, f.subscribers, f.channel, f.patience)
	}
}

func reportVersions(i *inspector, markers []fleet.Marker) {
	versions := make(map[string][]fleet.Marker)
	for _, mk := range markers {
		versions[mk.Hub.Version] = append(versions[mk.Hub.Version], mk)
	}
	if len(versions) < 2 {
		return
	}
	var parts []string
	for _, version := range slices.Sorted(maps.Keys(versions)) {
		parts = append(parts, finding.Name(version)+" ("+namesOf(versions[version])+")")
	}
	i.report.Warn("fleet-versions", "after a deploy, check that all hubs were replaced", "hubs run different versions: %s", strings.Join(parts[:min(len(parts), maxShownHubs)], ", "))
}

func reportChannels(i *inspector, markers []fleet.Marker) {
	own := acl.Pattern(i.ChannelPrefix)
	for _, mk := range markers {
		if isUnderstood(mk) && !slices.Equal(mk.Patterns, []string{own}) {
			i.report.Warn("fleet-channels", "use the same --channel-prefix for all hubs of a fleet, and another --control-channel for each fleet",
				"hub %s is subscribed to %s instead of %s: a page that moves to or from this hub receives a gap", finding.Name(mk.Hub.Name), finding.Name(strings.Join(mk.Patterns, " ")), own)
			return
		}
	}
}

func reportServers(i *inspector, markers []fleet.Marker) {
	servers := make(map[string]bool)
	for _, mk := range markers {
		if isUnderstood(mk) {
			servers[mk.RunID] = true
		}
	}
	if len(servers) > 1 {
		i.report.Warn("fleet-servers", "use the same --redis for all hubs of a fleet: the address of one primary, or of its Sentinels or cluster nodes",
			"the hubs are subscribed to %d different Redis servers: a page that moves between them receives a gap", len(servers))
	}
}

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
