package inspect

import (
	"cmp"
	"fmt"
	"maps"
	"regexp"
	"slices"
	"strings"
	"time"

	"github.com/dustin/go-humanize"

	"usercast/internal/finding"
	"usercast/transport/redis"
	"usercast/transport/redis/internal/acl"
)

// maxShownChannels and maxShownPrefixes limit the report.
const (
	maxShownChannels = 10
	maxShownPrefixes = 5
)

// isInternal reports whether messages of a channel are commands between hubs, or notifications of Redis itself.
func isInternal(channel string) bool {
	return strings.HasPrefix(channel, acl.OwnChannels) || strings.HasPrefix(channel, "__")
}

// An otherLibrary is a known library whose messages a hub cannot route.
type otherLibrary struct {
	channel *regexp.Regexp
	library string
	advice  string // to its users
}

var others = []otherLibrary{
	{regexp.MustCompile(`(^|[^a-z])_action_cable_internal|(^|[_:])action_cable/|[:_]Z2lkOi8v[A-Za-z0-9+/_=-]*$`), "Action Cable",
		"publish to %s with the Redis client of the app: these channels do not contain a user id"},
	{regexp.MustCompile(`^socket\.io(-request|-response)?#`), "the Redis adapter of Socket.IO",
		"publish to %s with the Redis client of the app: these messages are encoded for Socket.IO servers"},
	{regexp.MustCompile(`^asgi(:|__)group(:|__)|^specific[.!]`), "Django Channels",
		"publish to %s with the Redis client of the app: these messages are encoded for Django Channels"},
	{regexp.MustCompile(`celery|^/\d+\.|\.pidbox$`), "Celery", ""},
	{regexp.MustCompile(`^(laravel_)?horizon|:notify$|^reverb$`), "Horizon or Reverb", ""},
}

// uuid and idToken match what is certainly the id of a user: a number, a UUID or a ULID.
const (
	uuid    = `[0-9a-fA-F]{8}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{4}-[0-9a-fA-F]{12}`
	idToken = `(?:` + uuid + `|[0-9A-HJKMNP-TV-Z]{26}|[0-9]+)`
)

var (
	// afterUser matches a name up to the word user and a punctuation mark, such as private-App.Models.User. or user_.
	afterUser = regexp.MustCompile(`^(.*?(?i:users?|members?|accounts?)[^A-Za-z0-9])(.+)$`)
	// beforeID matches a name up to the first id.
	beforeID = regexp.MustCompile(`^(|.*?[^A-Za-z0-9])(` + idToken + `(?:[^A-Za-z0-9].*)?)$`)
	// afterGroup matches a name that begins with a word for a group of users and a punctuation mark, such as team- or tenants:.
	afterGroup = regexp.MustCompile(`^((?i:groups?|teams?|rooms?|tenants?|organi[sz]ations?|workspaces?)[^A-Za-z0-9]).`)
	// leadingID matches an id, and what follows it.
	leadingID = regexp.MustCompile(`^` + idToken + `([^A-Za-z0-9])(.+)$`)
	// colonID matches ids of identity providers that contain a colon: Keycloak's, Google's and those of Amazon Cognito.
	colonID = regexp.MustCompile(`^f:` + uuid + `:|^accounts\.google\.com:|^[a-z]{2}(?:-[a-z]+)+-\d:` + uuid)
)

// guessPrefix returns a candidate with the prefix with which a hub would read a channel, or nil if the channel does not fit
// any. It is certain if the channel contains the current prefix of users, before which a library may have put its own, or a
// word for a user or a group.
func (i *inspector) guessPrefix(channel string) *candidate {
	if at := strings.Index(channel, i.Channels.Users); at > 0 && at+len(i.Channels.Users) < len(channel) {
		return &candidate{prefix: channel[:at+len(i.Channels.Users)], certain: true}
	}
	if m := afterUser.FindStringSubmatch(channel); m != nil {
		return &candidate{prefix: m[1], certain: true}
	}
	if m := afterGroup.FindStringSubmatch(channel); m != nil {
		return &candidate{prefix: m[1], certain: true, group: true}
	}
	if m := beforeID.FindStringSubmatch(channel); m != nil {
		return &candidate{prefix: m[1]}
	}
	return nil
}

// cutPrefix returns a channel without the prefix of users or groups; ok is false if it begins with neither.
func (i *inspector) cutPrefix(channel string) (rest string, group, ok bool) {
	if rest, ok = strings.CutPrefix(channel, i.Channels.Users); !ok && i.Channels.Groups != "" {
		rest, ok = strings.CutPrefix(channel, i.Channels.Groups)
		group = ok
	}
	return rest, group, ok
}

// prefixes returns the prefixes of the hub for a text.
func (i *inspector) prefixes() string {
	if i.Channels.Groups == "" {
		return i.Channels.Users
	}
	return i.Channels.Users + " or " + i.Channels.Groups
}

// otherSeparator returns the character between user and topic if it is certainly another than the current one, or 0.
// rest is a channel without its prefix.
func otherSeparator(rest string, separator byte) byte {
	if colonID.MatchString(rest) {
		if separator == ':' {
			return '/'
		}
		return 0
	}
	if m := leadingID.FindStringSubmatch(rest); m != nil && len(m[1]) == 1 && m[1][0] != separator && redis.ValidateSeparator(m[1][0]) == nil {
		// 42-7 may be one id, but 42.activity is a user and a topic.
		if strings.IndexByte(rest, separator) < 0 && (m[1][0] != '-' || !leadingID.MatchString(m[2]+":x")) {
			return m[1][0]
		}
	}
	return 0
}

// A candidate is a prefix that fits some channels.
type candidate struct {
	prefix    string
	separator byte
	certain   bool // see guessPrefix
	group     bool // it is a prefix of groups
	messages  int64
	channels  []string
}

// example returns the channel to show: if possible, not one for a group that cannot exist.
func (c *candidate) example() string {
	if n := slices.IndexFunc(c.channels, func(channel string) bool { return !c.group || !strings.HasPrefix(channel, c.prefix+"*") }); n >= 0 {
		return c.channels[n]
	}
	return c.channels[0]
}

// reportTally reports the channels of a tally, which are called names.
func (h *Observation) reportTally(t *tally, messages, names string) {
	i := h.in
	prefix, separator := i.Channels.Users, i.Channels.Separator
	if t.total == 0 {
		publish := "usercast publish "
		if i.StreamKey != "" {
			publish += "--feed stream --stream-key " + finding.ShellQuoted(i.StreamKey) + " "
		}
		if separator == redis.DefaultSeparator {
			publish += "42:test hello"
		} else {
			publish += fmt.Sprintf("--topic-separator %s %s hello", finding.ShellQuoted(string(rune(separator))), finding.ShellQuoted(fmt.Sprintf("42%ctest", separator)))
		}
		i.report.Warn("published-nothing", "run "+publish+" in another terminal while this command runs, with the same --redis and --channel-prefix; if it is received, compare the app's Redis URL with --redis",
			"no %s were received from an app within %s", messages, h.lasted.Round(100*time.Millisecond))
		return
	}
	if t.more > 0 {
		i.report.Note("published-sample", "", "only the first %s different %s are evaluated; %s of %s %s went to others", humanize.Comma(maxObservedChannels), names, humanize.Comma(t.more), humanize.Comma(t.total), messages)
	}
	fits, malformed, allGroups := candidate{}, candidate{}, candidate{}
	fitsGroup := false
	guesses, libraries := make(map[string]*candidate), make(map[int]*candidate)
	unknown := candidate{}
	for _, channel := range slices.Sorted(maps.Keys(t.count)) {
		n := t.count[channel]
		add := func(c *candidate) { c.messages += n; c.channels = append(c.channels, channel) }
		if rest, group, ok := i.cutPrefix(channel); ok {
			switch to, _, ok := i.Channels.Split(channel); {
			case !ok:
				malformed.group = group
				add(&malformed)
			case group && to.Name == "*":
				add(&allGroups)
			default:
				add(&fits)
				fits.separator = cmp.Or(fits.separator, otherSeparator(rest, separator))
				fitsGroup = fitsGroup || group
			}
			continue
		}
		if i.StreamKey == "" && strings.HasSuffix(channel, i.ControlChannel) {
			do := "remove the prefix from the app's Redis connection"
			if finding.IsPrintable(channel) {
				do = "use --control-channel " + finding.ShellQuoted(channel) + ", or " + do
			}
			i.report.Warn("published-control", do, "control commands are published to %s, but the hub subscribes to %s", finding.Name(channel), i.ControlChannel)
			continue
		}
		if n := slices.IndexFunc(others, func(o otherLibrary) bool { return o.channel.MatchString(channel) }); n >= 0 {
			if libraries[n] == nil {
				libraries[n] = new(candidate)
			}
			add(libraries[n])
			continue
		}
		guess := i.guessPrefix(channel)
		if guess == nil {
			add(&unknown)
			continue
		}
		if guesses[guess.prefix] == nil {
			guesses[guess.prefix] = guess
		}
		c := guesses[guess.prefix]
		add(c)
		c.separator = cmp.Or(c.separator, otherSeparator(channel[len(c.prefix):], separator))
	}
	h.reportFits(t, &fits, messages, names)
	if malformed.messages > 0 {
		do, what := fmt.Sprintf("publish to %s<user>%c<topic>", prefix, separator), "a user id"
		if malformed.group {
			do, what = fmt.Sprintf("publish to %s<group>%c<topic>", i.Channels.Groups, separator), "the name of a group"
		}
		i.report.Warn("published-malformed", do, "%s went to %q, which does not contain %s", count(malformed.messages, messages), malformed.channels[0], what)
	}
	if allGroups.messages > 0 {
		do := "set --broadcast-user, and publish to the channel of that user"
		if i.BroadcastUser != "" {
			do = "publish to " + prefix + i.BroadcastUser
		}
		i.report.Warn("published-groups", "if they are meant for all users: "+do,
			"%s went to %s, which does not address all groups: no user can be a member of the group *", count(allGroups.messages, messages), finding.Name(allGroups.channels[0]))
	}
	h.reportGuesses(guesses, fits.messages > 0, fitsGroup, messages, names)
	for n, o := range others {
		if c := libraries[n]; c != nil {
			advice := ""
			if o.advice != "" {
				advice = fmt.Sprintf(o.advice, fmt.Sprintf("%s<user>%c<topic>", prefix, separator))
			}
			i.report.Note("published-library", advice, "%s of %s, for example to %s", count(c.messages, messages), o.library, finding.Name(c.channels[0]))
		}
	}
	if unknown.messages > 0 {
		level := Note
		if fits.messages == 0 && len(guesses) == 0 {
			level = Warn
		}
		i.report(Finding{Name: "published-unknown", Level: level,
			What: fmt.Sprintf("%s to %s without %s and without a user id that can be recognized, for example to %s", count(unknown.messages, messages), count(int64(len(unknown.channels)), names), i.prefixes(), finding.Name(unknown.channels[0])),
			Do: fmt.Sprintf("if they are meant for users, publish to %s<user>%c<topic>, or set --channel-prefix to the text before the user id", prefix, separator) +
				"\nif they are meant for groups of users, " + i.publishToGroup("publish to %s, or ") + "set --group-prefix to the text before the name of the group"})
	}
}

// publishToGroup formats the form of a channel of a group, or returns "" if groups are disabled.
func (i *inspector) publishToGroup(format string) string {
	if i.Channels.Groups == "" {
		return ""
	}
	return fmt.Sprintf(format, fmt.Sprintf("%s<group>%c<topic>", i.Channels.Groups, i.Channels.Separator))
}

// reportFits reports the channels that a hub reads.
func (h *Observation) reportFits(t *tally, fits *candidate, messages, names string) {
	i := h.in
	if fits.messages == 0 {
		return
	}
	i.report.OK("published", "%[1]s to %[3]s that begin with %[4]s in %[2]s: the hub receives them", count(fits.messages, messages), h.lasted.Round(100*time.Millisecond), count(int64(len(fits.channels)), names), i.prefixes())
	slices.SortStableFunc(fits.channels, func(a, b string) int { return cmp.Compare(t.count[b], t.count[a]) })
	for n, channel := range fits.channels {
		if n == maxShownChannels {
			i.report.Note("published-channel", "", "%s more", count(int64(len(fits.channels)-n), names))
			break
		}
		i.report.Note("published-channel", "", "%s: %s (%s)", finding.Name(channel), i.reading(i.Channels, channel), count(t.count[channel], messages))
	}
	if s := fits.separator; s != 0 {
		rest := func(channel string) string { rest, _, _ := i.cutPrefix(channel); return rest }
		example := fits.channels[slices.IndexFunc(fits.channels, func(c string) bool { return otherSeparator(rest(c), i.Channels.Separator) == s })]
		prefix := strings.TrimSuffix(example, rest(example))
		channels := i.Channels
		channels.Separator = s
		use := "use --topic-separator " + finding.ShellQuoted(string(rune(s)))
		what, do := fmt.Sprintf("%s does not contain %q between user and topic", finding.Name(example), i.Channels.Separator), use+": then it is "+i.reading(channels, example)
		if colonID.MatchString(rest(example)) {
			what = fmt.Sprintf("the user id in %s contains the topic separator", finding.Name(example))
			do = fmt.Sprintf("%s, and publish to %s<user>%c<topic>", use, prefix, s)
		}
		i.report.Warn("published-separator", do, "%s", what)
	}
}

// reportGuesses reports prefixes that fit channels which the hub does not receive. They are notes if it receives others,
// because these may belong to another program. For groups with a prefix, that means others of groups (fitsGroup).
func (h *Observation) reportGuesses(guesses map[string]*candidate, fits, fitsGroup bool, messages, names string) {
	i := h.in
	byMessages := slices.SortedFunc(maps.Values(guesses), func(a, b *candidate) int {
		if a.certain != b.certain {
			return map[bool]int{true: -1, false: 1}[a.certain]
		}
		return cmp.Or(cmp.Compare(b.messages, a.messages), cmp.Compare(a.prefix, b.prefix))
	})
	for n, c := range byMessages {
		if n == maxShownPrefixes {
			i.report.Note("published-prefix", "", "%d more prefixes were found", len(byMessages)-n)
			return
		}
		f := Finding{Name: "published-prefix", Level: Warn,
			What: fmt.Sprintf("%s to %s that the hub does not receive: %s does not begin with %s", count(c.messages, messages), count(int64(len(c.channels)), names), finding.Name(c.example()), i.prefixes())}
		fits, id, meant := fits, "a user id", "users"
		if c.group {
			id, meant = "the name of a group of users", "groups of users"
			fits = fitsGroup || fits && i.Channels.Groups == ""
		}
		if f.Do = i.remedy(c); !c.certain {
			f.Do = "if the text after the prefix is " + id + ": " + f.Do
		} else if fits {
			f.Do = "if they are meant for " + meant + ": " + f.Do
		}
		if fits || !c.certain && byMessages[0].certain {
			f.Level = Note
		}
		i.report(f)
	}
}

// remedy returns the flags for a candidate.
func (i *inspector) remedy(c *candidate) string {
	if c.prefix == "" {
		return fmt.Sprintf("publish to %s: a hub needs a prefix before the user id", finding.Name(i.Channels.Users+c.channels[0]))
	}
	flag, channels := "--channel-prefix", redis.Channels{Users: c.prefix, Separator: cmp.Or(c.separator, i.Channels.Separator)}
	err := redis.ValidatePrefix(c.prefix)
	if c.group {
		flag, channels.Users, channels.Groups = "--group-prefix", i.Channels.Users, c.prefix
		err = channels.ValidateGroups()
	}
	if c.group && (err != nil || !finding.IsPrintable(c.prefix)) && i.Channels.Groups != "" {
		return i.publishToGroup("publish to %s") + fmt.Sprintf(": %q cannot be used as a prefix", c.prefix)
	}
	if err != nil || !finding.IsPrintable(c.prefix) {
		return fmt.Sprintf("publish to %s<user>%c<topic>: %q cannot be used as a prefix", i.Channels.Users, i.Channels.Separator, c.prefix)
	}
	flags := "use " + flag + " " + finding.ShellQuoted(c.prefix)
	if channels.Separator != i.Channels.Separator {
		flags += " --topic-separator " + finding.ShellQuoted(string(rune(channels.Separator)))
	}
	do := fmt.Sprintf("%s: then %s is %s", flags, finding.Name(c.example()), i.reading(channels, c.example()))
	if c.group {
		return do + i.publishToGroup("\nor publish to %s, because a hub has one prefix for groups")
	}
	before, ok := strings.CutSuffix(c.prefix, i.Channels.Users)
	switch {
	case !ok || i.StreamKey != "":
	case strings.HasSuffix(before, "private-"): // Laravel broadcasting adds it, but not to control commands
		do += "\nadd --control-channel " + finding.ShellQuoted(i.ControlChannel) + " if the app publishes control commands without a prefix"
	default:
		do += fmt.Sprintf("\nif the app sends control commands over the same connection, add --control-channel %s; or remove the prefix %q from the app's Redis connection",
			finding.ShellQuoted(before+redis.ControlChannel(i.Channels.Users)), before)
	}
	return do
}

// reading describes how a hub with these channels reads a channel.
func (i *inspector) reading(channels redis.Channels, channel string) string {
	to, topic, _ := channels.Split(channel)
	user := to.Name
	who := fmt.Sprintf("user %q", user)
	switch {
	case to.Group && user == "*":
		who = `group "*", of which no user can be a member`
	case to.Group:
		who = fmt.Sprintf("group %q", user)
	case user == i.BroadcastUser:
		who = "all users"
	case user == "*" && i.BroadcastUser == "":
		who += ", whom no stream can have, because --broadcast-user is empty"
	case user == "*":
		who += fmt.Sprintf(", whom no stream can have, because --broadcast-user is %q", i.BroadcastUser)
	}
	if topic == "" {
		return who + ", no topic"
	}
	return fmt.Sprintf("%s, topic %q", who, topic)
}

// count formats a number of things, whose plural is given.
func count(n int64, plural string) string {
	if n == 1 {
		switch plural {
		case "entries":
			return "1 entry"
		case "messages", "channels":
			plural = strings.TrimSuffix(plural, "s")
		default:
			if rest, ok := strings.CutPrefix(plural, "values "); ok {
				plural = "value " + rest
			}
		}
	}
	return humanize.Comma(n) + " " + plural
}
