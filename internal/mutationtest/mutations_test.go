// Package mutationtest proves that tests fail when a rule is taken out of the code. Each mutation changes a few lines, and
// names a test that must fail then. The changed file replaces the original only for the compiler (go test -overlay).
// make mutations runs all of them; the tests without a tag check that the list fits the code.
package mutationtest

import (
	"go/parser"
	"go/token"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
)

// A mutation is a change that a test must find.
type mutation struct {
	name     string
	file     string // below the root of the module
	old, new string // old occurs exactly once
	pkg      string // of the test, below the root of the module
	test     string // its name
	class    string // of the simulation; "": another test
}

// simulated returns a mutation that the simulation of a class must find.
func simulated(class, name, file, old, new string) mutation {
	return mutation{name, file, old, new, "transport/redis/internal/fleetsim", "TestPagesReceiveEachMessageOrAJustifiedGap", class}
}

var mutations = []mutation{
	simulated("clean", "R6: a hub that is behind reports unknown-id without a PING", "hub/history_user.go",
		"if h.waiting.wake != nil && (state == placeUnknownMarker || state == placeAhead) {", "if false {"),
	simulated("replica", "R3: markers count for every run_id", "transport/redis/internal/fleet/member.go",
		"return mk.RunID == m.runID && m.runID != \"\"", "return true"),
	simulated("faults", "R3: markers count for all patterns", "transport/redis/internal/fleet/member.go",
		"m.isSameServer(mk) && slices.Equal(mk.Patterns, m.patterns)", "m.isSameServer(mk)"),
	simulated("faults", "R4: ids are valid beyond the end of their generation", "hub/marker.go",
		"\tt.gen.end = messages\n", ""),
	simulated("clean", "R18: bye has the position at which it is written", "hub/client_take.go",
		"return c.queue.rare.newest", "return c.hub.seq.newest"),
	simulated("limits", "R16: a replay ignores what the ring has dropped", "hub/ring.go",
		"\tr.lowWater = max(r.lowWater, s.newest)\n", ""),
	simulated("limits", "R15: the messages of a forgotten user count as stored", "hub/history_user.go",
		"\ts.ageLow = s.ageLow.later(o.past.retained.last)\n", ""),
	simulated("limits", "R14: messages of a user who is remembered are not in the ring", "hub/hub.go",
		"h.ring != nil && (o == nil || len(o.clients) == 0)", "h.ring != nil && o == nil"),
	simulated("clean", "R14: messages of groups are not in the ring", "hub/hub.go",
		"h.ring != nil && (o == nil || len(o.clients) == 0)", "h.ring != nil && !to.Group && (o == nil || len(o.clients) == 0)"),
	simulated("clean", "R14: a replay does not contain what was stored for groups", "hub/history.go",
		"for i, o := 0, c.user; o != nil; i, o = i+1, c.group(i) {", "for o := c.user; o != nil; o = nil {"),
	simulated("clean", "R14: the ring does not distinguish groups from users", "hub/ring.go",
		"|| uint32(head[20]) != kindOf(to) {", "{"),
	simulated("limits", "R16: a replay ignores what was dropped of groups", "hub/history_user.go",
		"\t\tfrom = later(from, o.past.lowWater)\n", "\t\tif o == r.client.user {\n\t\t\tfrom = later(from, o.past.lowWater)\n\t\t}\n"),
	simulated("clean", "a large group is not handed out in parts", "hub/broadcast.go",
		"\tc.lastBroadcast = b.newest // before", "\tif len(b.visiting) > 0 && b.visiting[0] != nil {\n\t\treturn 0\n\t}\n\tc.lastBroadcast = b.newest // before"),
	simulated("lossy", "R9: a marker lists only the newest marker", "transport/redis/internal/fleet/points.go",
		"now-rows[0].at > listAge", "len(rows) > 1"),
	simulated("lossy", "R10: hubs are not compared", "transport/redis/internal/fleet/member.go",
		"if they > we || they == we", "if they > we+1<<60 || they == we"),
	simulated("lossy", "R12: other hubs do not doubt ids", "transport/redis/internal/fleet/member.go",
		"\t\tm.cfg.Places.Doubt(mk.Missed)\n", ""),
	simulated("quiet", "R21: markers are dropped after 20 s", "hub/marker.go",
		"now-t.rows.at(0).receivedAt > t.age", "now-t.rows.at(0).receivedAt > 20*time.Second"),

	{"R1: the control channel comes before the pattern", "transport/redis/pubsub_subscription.go",
		`s.send(func() error { return s.link.PSubscribe(s.patterns...) }, patterns...); err != nil {
		return err
	}
	if err := s.send(func() error { return s.link.Subscribe(s.cfg.ControlChannel) }, pendingCommand{kind: subscribeControl}); err != nil {`,
		`s.send(func() error { return s.link.Subscribe(s.cfg.ControlChannel) }, pendingCommand{kind: subscribeControl}); err != nil {
		return err
	}
	if err := s.send(func() error { return s.link.PSubscribe(s.patterns...) }, patterns...); err != nil {`,
		"transport/redis", "TestR1GenerationBeginsAtThePattern", ""},
	{"R2: malformed messages are not counted", "transport/redis/pubsub_subscription.go",
		"\t\tp.cfg.Hub.Skip()\n", "", "transport/redis", "TestR2EveryMatchedMessageCounts", ""},
	{"R3: patterns are subscribed to one after the other", "transport/redis/pubsub_subscription.go",
		"func() error { return s.link.PSubscribe(s.patterns...) }",
		`func() error {
		for _, pattern := range s.patterns {
			if err := s.link.PSubscribe(pattern); err != nil {
				return err
			}
		}
		return nil
	}`,
		"transport/redis", "TestR3GenerationBeginsAtTheFirstPattern", ""},
	{"R4: the first generation is not a gap", "hub/pubsub.go",
		"\tp.addGapForAll(GapRedisReconnect)\n", "\tif p.seq.markers.newest > 0 {\n\t\tp.addGapForAll(GapRedisReconnect)\n\t}\n",
		"hub", "TestR4FirstGenerationIsAGap", ""},
	{"R5: a gap takes a number", "hub/sequence.go",
		"e.ID.Ms, e.ID.Seq, e.marker = s.newest.Ms, s.newest.Seq&^math.MaxUint32+gapUnit+uint64(s.marker.ordinal), s.marker",
		"s.number(e)", "hub", "TestR5GapTakesNoNumber", ""},
	{"R5: a suffix of another hub is honored", "hub/place.go",
		"if p.ours = boot == t.own.name; p.ours {", "if p.ours = boot != \"\"; p.ours {", "hub", "TestR5SuffixIsOursOnly", ""},
	{"R6: a huge count is added", "hub/place.go",
		"if n > end-p.marker.at.Ms {", "if n+p.marker.at.Ms > end {", "hub", "TestR6HugeCountIsUnknown", ""},
	{"R7: an unknown marker is not looked up", "transport/redis/pubsub_locate.go",
		"if s.oneOfSeveral.Load() || s.primary.RunID == \"\" {", "if true {", "transport/redis", "TestR7OtherPrimaryIsANewGeneration", ""},
	{"R8: the opening block has the position of the hub", "transport/sse/stream.go",
		"\t\ts.own = &own\n", "\t\t_ = own\n", "transport/sse", "TestR8OpeningRepeatsTheClientsID", ""},
	{"R11: a loss is not announced", "transport/redis/internal/fleet/member.go",
		"\tm.announce = true\n", "", "transport/redis/internal/fleet", "TestR11AnnouncedOnceAtTheNextMarker", ""},
	{"R13: a draining hub writes no last marker", "internal/app/app.go",
		"\ta.writeMarkers(ctx)\n", "\t_ = ctx\n", "internal/e2e/stream", "TestR13DrainingHubTestifies", ""},
	{"R16: a replay is complete since the user came", "hub/history_user.go",
		"if low := min(o.past.since, lowest); r.cursor.Ms < low {", "if low := min(lowest, 0); r.cursor.Ms < low {",
		"hub", "TestR16Complete", ""},
	{"R14: the ring is searched for the user only", "hub/history_user.go",
		"\t\t\tif r.cursor.Ms < o.past.since {", "\t\t\tif o == r.client.user && r.cursor.Ms < o.past.since {",
		"hub", "TestR14GroupMessagesAreMergedByPlace", ""},
	{"R14: the search of a client with many groups holds the lock for long", "hub/history_user.go",
		"s.ring.step(r.absent, ringLooks)", "s.ring.step(r.absent, 64*ringLooks)", "hub", "TestReplayOfManyGroupsIsDoneInParts", ""},
	{"R15: the latest departure of those who were forgotten does not count", "hub/history_user.go",
		"s.ageLow = s.ageLow.later(o.past.retained.last)", "s.ageLow = o.past.retained.last", "hub", "TestR25HeldUserWhoHadAClient", ""},
	{"R16: a replay is complete since the group had its first member", "hub/history_user.go",
		"if low := min(o.past.since, lowest); r.cursor.Ms < low {", "if low := min(o.past.since, lowest); o == r.client.user && r.cursor.Ms < low {",
		"hub", "TestR16CompleteForEachGroup", ""},
	{"R16: a replay begins at the low-water marks of others", "hub/history_user.go",
		"if low := min(o.past.since, lowest); r.cursor.Ms < low {", "if low := lowest; r.cursor.Ms < low {",
		"hub", "TestR16CompleteForEachGroup", ""},
	{"R17: a ping has an id although the place is unknown", "transport/sse/stream.go",
		"w.id, w.moved = id, ok && !s.isLastID(id)", "w.id, w.moved = id, (ok || true) && !s.isLastID(id)",
		"transport/sse", "TestR17NoOtherIDWhileThePlaceIsUnknown", ""},
	{"R19: entries between the replay and the queue are lost", "hub/replay.go",
		"r.live, r.end = true, later(seq.newest, r.cursor)", "_, r.live, r.end = seq, true, r.cursor",
		"hub", "TestR19NothingBetweenReplayAndLive", ""},
	{"R20: a hub is ready before its first marker", "transport/redis/pubsub_markers.go",
		"if p.member == nil || p.marked.Load() {", "if true {", "internal/e2e/stream", "TestR20ReadyAfterItsOwnMarker", ""},
	{"R22: only own markers count", "transport/redis/internal/fleet/member.go",
		"if !m.counts(mk) ||", "if boot != m.boot || !m.counts(mk) ||", "transport/redis/internal/fleet", "TestR22MuteHubUsesMarkersOfOthers", ""},
	{"R23: a poll ends with its first write", "transport/sse/stream.go",
		"\t\tif !s.send(w) {\n\t\t\treturn\n\t\t}\n", "\t\tif !s.send(w) {\n\t\t\treturn\n\t\t}\n\t\tif s.poll == polled {\n\t\t\ts.client.End(hub.ReasonPoll)\n\t\t}\n",
		"transport/sse", "TestR23PollSendsItsWholeReplay", ""},
	{"R24: the control channel may match the pattern", "transport/redis/channel.go",
		"case strings.HasPrefix(channel, c.Users):", "case channel == c.Users:", "transport/redis", "TestR24ControlChannelThatThePatternMatchesIsRejected", ""},
	{"R25: a position does not keep the user's messages", "hub/hub.go",
		"ok = h.history.hold(User(user))", "ok = h.seq.marker != h.seq.markers.own", "hub", "TestR25Position", ""},
	{"R25: a second position does not renew the history", "hub/history_user.go",
		"case o.past.retained != nil:", "case false:", "hub", "TestR25Position", ""},
	{"R25: the history of a held user has everything since the start", "hub/history_user.go",
		"\t\t\ts.joined(o, true)\n", "", "hub", "TestR25Position", ""},
	{"R25: a position without a marker counts as valid at other hubs", "hub/history_user.go",
		"return s.seq.marker != s.seq.markers.own", "return true", "hub", "TestR25Position", ""},
	{"R25: positions of many users expire the messages of others", "hub/history_user.go",
		"\t\t\ts.retain(o, s.now(), departure{})\n", "\t\t\ts.left(o)\n", "hub", "TestR25PositionsOfManyUsersAreBounded", ""},
	{"R25: a held user had no client", "hub/history_user.go",
		"\t\t\ts.retain(o, s.now(), last)\n", "\t\t\ts.retain(o, s.now(), departure{})\n\t\t\t_ = last\n", "hub", "TestR25HeldUserWhoHadAClient", ""},
}

const root = "../.."

// apply returns the file with the change.
func (m *mutation) apply(t *testing.T) []byte {
	t.Helper()
	text, err := os.ReadFile(filepath.Join(root, m.file))
	if err != nil {
		t.Fatal(err)
	}
	if n := strings.Count(string(text), m.old); n != 1 {
		t.Fatalf("%s contains %d times, want 1: %s", m.file, n, m.old)
	}
	return []byte(strings.Replace(string(text), m.old, m.new, 1))
}

func TestMutationsFitTheCode(t *testing.T) {
	t.Parallel()
	for _, m := range mutations {
		t.Run(m.name, func(t *testing.T) {
			if _, err := parser.ParseFile(token.NewFileSet(), m.file, m.apply(t), 0); err != nil {
				t.Error(err)
			}
			files, _ := filepath.Glob(filepath.Join(root, m.pkg, "*_test.go"))
			function := regexp.MustCompile(`(?m)^func ` + m.test + `\(t \*testing\.T\)`)
			for _, file := range files {
				if text, err := os.ReadFile(file); err == nil && function.Match(text) {
					return
				}
			}
			t.Errorf("%s has no test %s", m.pkg, m.test)
		})
	}
}
