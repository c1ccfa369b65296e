package redis

import (
	"bufio"
	"context"
	"crypto/rand"
	"errors"
	"fmt"
	"hash/maphash"
	"io"
	"strconv"
	"strings"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// Bounds of what one reply with entries brings. Redis bounds a reply by the number of entries
// only, and they can be of any size.
const (
	// readCount is the most entries that are requested at once: of a few hundred bytes each, a
	// round trip is a small part of the work.
	readCount = 200
	// pageBytes is how many bytes of entries are requested at once, by what the entries before
	// weighed, and how many are kept of a reply that weighs more. Two entries are always kept: the
	// first may be known already.
	pageBytes = 1 << 20
	// maxGrowth is how many times more entries are requested than the time before: what the next
	// ones weigh is not known.
	maxGrowth = 4
)

// Bounds of a reply's parts, checked before memory is used for them.
const (
	logConnBuffer = 64 << 10 // also the longest line, and the longest name of a channel to be kept
	maxText       = 1 << 20  // of INFO
	maxReplyDepth = 8
)

// A logConn reads entries of one Redis stream over a connection that go-redis made. It reads
// replies itself, because go-redis holds a whole reply in memory, whatever its size. After an
// error it is of no use, unless the error is that of a reply (isReply). For one goroutine.
type logConn struct {
	log     *Log
	link    *link
	asking  bool // the node imports the slot: each command is preceded by ASKING
	w       *bufio.Writer
	r       *bufio.Reader
	scratch []byte
	hash    maphash.Hash
	command string // sent last, for errors

	server identity // as it was last asked
	token  string   // stands for a server that may not be asked

	// What the entries weighed that came last; 0: not known.
	count  int   // how many to request
	weight int64 // bytes of one, on average
}

// dialLog connects to where the log is, or to the node that a redirection names. Silence of more
// than patience ends the connection, and so does the end of ctx.
func (l *Log) dialLog(ctx context.Context, to target, patience time.Duration) (*logConn, error) {
	c := &logConn{log: l, asking: to.asking, count: 1, scratch: make([]byte, 32<<10)}
	c.hash.SetSeed(marking)
	ready := false
	c.link = l.cfg.Server.newLinkTo(ctx, to, func(ctx context.Context, cn *goredis.Conn) (err error) {
		c.server, err = introduce(ctx, cn, l.missing)
		c.named()
		ready = err == nil
		return err
	})
	c.link.patience = patience
	// It makes the connection. Whether it is allowed is of no interest.
	if err := c.link.client.Ping(context.WithoutCancel(ctx)).Err(); err != nil && !(ready && isReply(err)) {
		c.link.close()
		return nil, c.link.why(err)
	}
	if !c.link.replies.idle() { // it would be taken for the reply to the next command
		c.link.close()
		return nil, badReply("more than was requested")
	}
	c.r = bufio.NewReaderSize(c.link.conn, logConnBuffer)
	c.w = bufio.NewWriter(deadlineWriter{c.link.conn, l.cfg.Server.answerTimeout})
	return c, nil
}

// named gives a server that does not say who it is an identity for this connection only.
func (c *logConn) named() {
	if c.server.runID == "" {
		if c.token == "" {
			c.token = rand.Text()
		}
		c.server.data = c.token
	}
}

// identify asks again who the server is.
func (c *logConn) identify() (err error) {
	c.server, err = identify(func(section string) (string, error) {
		text, err := c.info(section)
		return text, optional(err, rightInfo, c.log.missing)
	})
	c.named()
	return err
}

func (c *logConn) close() { c.link.close() }

// replyError is an error reply to a command.
type replyError struct{ command, text string }

func (e *replyError) Error() string { return e.text }
func (e *replyError) RedisError()   {} // makes it one for go-redis, whose functions classify it

// bad is the error of a reply to the last command that cannot be right.
func (c *logConn) bad(what string) error { return badReply("to " + c.command + ": " + what) }

// send writes a command. Its reply begins at begin.
func (c *logConn) send(args ...string) error {
	if c.asking {
		c.write("ASKING")
	}
	c.write(args...)
	c.command = args[0]
	if args[0] == "XINFO" {
		c.command += " " + args[1]
	}
	return c.w.Flush()
}

func (c *logConn) write(args ...string) {
	fmt.Fprintf(c.w, "*%d\r\n", len(args))
	for _, arg := range args {
		fmt.Fprintf(c.w, "$%d\r\n%s\r\n", len(arg), arg) // a bufio.Writer remembers its first error
	}
}

// begin reads the head of a command's reply. An error reply is a *replyError.
func (c *logConn) begin() (h replyHead, err error) {
	if c.asking {
		if _, err := c.head(); err != nil { // of ASKING; its refusal comes again with the command's
			return replyHead{}, err
		}
	}
	h, err = c.head()
	if err == nil && h.kind == '-' {
		err = &replyError{c.command, h.text}
	}
	return h, err
}

// replyHead is the first line of a reply or of a part of one.
type replyHead struct {
	kind byte   // one of + - : $ *
	n    int64  // of : the number, of $ and * the length; -1: nil
	text string // of + and -
}

func (c *logConn) head() (h replyHead, err error) {
	line, err := c.r.ReadSlice('\n')
	if err != nil {
		if errors.Is(err, bufio.ErrBufferFull) {
			err = c.bad("a line is too long")
		}
		return h, err
	}
	if len(line) < 3 || line[len(line)-2] != '\r' {
		return h, c.bad("a line ends without CR LF")
	}
	h.kind, line = line[0], line[1:len(line)-2]
	switch h.kind {
	case '+', '-':
		h.text = string(line)
		return h, nil
	case ':', '$', '*':
		if h.n, err = strconv.ParseInt(string(line), 10, 64); err != nil {
			return h, c.bad("a number cannot be read")
		}
		if h.kind != ':' && (h.n < -1 || h.n > maxBulk) {
			return h, c.bad(fmt.Sprintf("a length of %d", h.n))
		}
		return h, nil
	}
	return h, c.bad(fmt.Sprintf("type %q", h.kind))
}

// expect reads the head of a part that must be of a kind.
func (c *logConn) expect(kind byte) (n int64, err error) {
	h, err := c.head()
	if err == nil && h.kind != kind {
		err = c.bad(fmt.Sprintf("type %q where %q belongs", h.kind, kind))
	}
	return h.n, err
}

// bulk reads the rest of a string of n bytes and returns it if it has at most keep bytes. All of
// it goes into the hash.
func (c *logConn) bulk(n, keep int64) (text string, err error) {
	if n < 0 {
		return "", c.bad("nil instead of a string")
	}
	var kept strings.Builder
	if n <= keep {
		kept.Grow(int(n))
	}
	for left := n; left > 0; {
		chunk := c.scratch[:min(left, int64(len(c.scratch)))]
		if _, err := io.ReadFull(c.r, chunk); err != nil {
			return "", err
		}
		_, _ = c.hash.Write(chunk)
		if n <= keep {
			kept.Write(chunk)
		}
		left -= int64(len(chunk))
	}
	if _, err := io.ReadFull(c.r, c.scratch[:2]); err != nil {
		return "", err
	}
	if c.scratch[0] != '\r' || c.scratch[1] != '\n' {
		return "", c.bad("a string is not as long as its length says")
	}
	return kept.String(), nil
}

// short reads a string that must not be longer than most.
func (c *logConn) short(most int64) (string, error) {
	n, err := c.expect('$')
	if err == nil && n > most {
		err = c.bad(fmt.Sprintf("a string of %d bytes", n))
	}
	if err != nil {
		return "", err
	}
	return c.bulk(n, most)
}

// skip reads a part of any kind.
func (c *logConn) skip(depth int) error {
	h, err := c.head()
	if err != nil {
		return err
	}
	switch h.kind {
	case '$':
		if h.n >= 0 {
			_, err = c.bulk(h.n, -1)
		}
	case '*':
		if depth == maxReplyDepth {
			return c.bad("arrays are nested too deeply")
		}
		for range h.n {
			if err := c.skip(depth + 1); err != nil {
				return err
			}
		}
	}
	return err
}

// info is a section of INFO.
func (c *logConn) info(section string) (string, error) {
	if err := c.send("INFO", section); err != nil {
		return "", err
	}
	h, err := c.begin()
	if err != nil {
		return "", err
	}
	if h.kind != '$' || h.n > maxText {
		return "", c.bad("not a text")
	}
	return c.bulk(h.n, maxText)
}

// length is the number of entries.
func (c *logConn) length() (uint64, error) {
	if err := c.send("XLEN", c.log.cfg.Key); err != nil {
		return 0, err
	}
	h, err := c.begin()
	if err == nil && h.kind != ':' {
		err = c.bad("not a number")
	}
	return uint64(h.n), err
}

// state is what XINFO STREAM tells. The first and the last entry, which come with it, are not held.
func (c *logConn) state() (info logInfo, err error) {
	if err := c.send("XINFO", "STREAM", c.log.cfg.Key); err != nil {
		return info, err
	}
	h, err := c.begin()
	if goredis.HasErrorPrefix(err, "no such key") {
		return logInfo{counts: true}, nil
	}
	if err != nil {
		return info, err
	}
	if h.kind != '*' || h.n < 0 || h.n%2 != 0 {
		return info, c.bad("not names and values")
	}
	for range h.n / 2 {
		name, err := c.short(logConnBuffer)
		if err != nil {
			return info, err
		}
		switch name {
		case "length":
			err = c.number(&info.length)
		case "entries-added":
			err = c.number(&info.added)
		case "last-generated-id":
			info.last, err = c.id()
		case "max-deleted-entry-id":
			info.counts = true
			info.deleted, err = c.id()
		case "first-entry":
			var there bool
			if there, err = c.expectEntry(); there {
				var e Entry
				e, _, err = c.entry(keepNothing)
				info.first = e.ID
			}
		default:
			err = c.skip(1)
		}
		if err != nil {
			return info, err
		}
	}
	return info, nil
}

func (c *logConn) number(n *uint64) error {
	v, err := c.expect(':')
	if err == nil && v < 0 {
		err = c.bad("a number below 0")
	}
	*n = uint64(v)
	return err
}

func (c *logConn) id() (EntryID, error) {
	text, err := c.short(64)
	if err != nil {
		return EntryID{}, err
	}
	return parseEntryID(text)
}

// What to keep of entries, next to their ids and marks.
type keeping int

const (
	keepNothing  keeping = iota
	keepCommands         // control commands
	keepAll
)

// page is the entries of one reply.
type page struct {
	entries []Entry // those that were kept, in the order of the reply
	count   int     // entries in the reply
	bytes   int64   // what they weighed
	more    bool    // there may be more than those that were kept
}

// read requests entries between two ids, both included, newest first with backwards. Budget is
// how many bytes are of use.
func (c *logConn) read(from, to string, backwards bool, budget int64, what keeping) (page, error) {
	command := "XRANGE"
	if backwards {
		command = "XREVRANGE"
	}
	most := c.most(budget) + 1 // a page may begin with the last entry of the one before
	if err := c.send(command, c.log.cfg.Key, from, to, "COUNT", strconv.Itoa(most)); err != nil {
		return page{}, err
	}
	h, err := c.begin()
	if err != nil {
		return page{}, err
	}
	return c.page(h, most, what)
}

// wait requests entries later than after, and waits for the first one.
func (c *logConn) wait(after EntryID, block time.Duration) (p page, err error) {
	most := c.most(pageBytes)
	if err := c.send("XREAD", "COUNT", strconv.Itoa(most), "BLOCK", strconv.FormatInt(block.Milliseconds(), 10),
		"STREAMS", c.log.cfg.Key, after.String()); err != nil {
		return p, err
	}
	h, err := c.begin()
	if err != nil || h.kind == '*' && h.n == -1 { // nothing came
		return p, err
	}
	// An array of streams, each of a key and its entries.
	if h.kind != '*' || h.n != 1 {
		return p, c.bad("not one stream")
	}
	n, err := c.expect('*')
	if err == nil && n != 2 {
		err = c.bad("not a key and entries")
	}
	if err == nil {
		err = c.skip(1)
	}
	if err == nil {
		h, err = c.head()
	}
	if err != nil {
		return p, err
	}
	return c.page(h, most, keepAll)
}

// places requests, for each id, the entry there or the next one.
func (c *logConn) places(ids []EntryID) ([]Entry, error) {
	for _, id := range ids { // few, and short: they fit into what the sockets buffer
		if err := c.send("XRANGE", c.log.cfg.Key, id.String(), "+", "COUNT", "1"); err != nil {
			return nil, err
		}
	}
	found := make([]Entry, len(ids))
	for i := range ids {
		h, err := c.begin()
		if err != nil {
			return nil, err
		}
		p, err := c.page(h, 0, keepNothing)
		if err != nil {
			return nil, err
		}
		if len(p.entries) > 0 {
			found[i] = p.entries[0]
		}
	}
	return found, nil
}

// markAt is the mark of the entry with an id; 0: there is none.
func (c *logConn) markAt(id EntryID) (uint64, error) {
	if err := c.send("XRANGE", c.log.cfg.Key, id.String(), id.String(), "COUNT", "1"); err != nil {
		return 0, err
	}
	h, err := c.begin()
	if err != nil {
		return 0, err
	}
	p, err := c.page(h, 0, keepNothing)
	if err != nil || len(p.entries) == 0 {
		return 0, err
	}
	return p.entries[0].mark, nil
}

// most is how many entries to request if so many bytes are of use.
func (c *logConn) most(budget int64) int {
	if c.weight == 0 {
		return c.count
	}
	return int(min(max(budget/c.weight, 1), int64(c.count)))
}

// page reads the entries of a reply to a request for most of them; 0: for one, which says nothing
// of the others' weight.
func (c *logConn) page(h replyHead, most int, what keeping) (p page, err error) {
	if h.kind != '*' || h.n < 0 || h.n > max(int64(most), 1) {
		return p, c.bad("not entries")
	}
	kept := int64(0)
	for range h.n {
		there, err := c.expectEntry()
		if err == nil && !there {
			err = c.bad("nil instead of an entry")
		}
		if err != nil {
			return p, err
		}
		keep := what
		if p.more {
			keep = keepNothing
		}
		e, weight, err := c.entry(keep)
		if err != nil {
			return p, err
		}
		p.count++
		p.bytes += weight
		if p.more {
			continue
		}
		if kept += e.size(); kept > pageBytes && len(p.entries) > 1 {
			p.more = true // this one and those after it are read again
			continue
		}
		p.entries = append(p.entries, e)
	}
	if most > 0 && p.count > 0 {
		c.weight = max(p.bytes/int64(p.count), 1)
		c.count = int(min(max(pageBytes/c.weight, 1), int64(c.count)*maxGrowth, readCount))
	}
	p.more = p.more || p.count == most
	return p, nil
}

// expectEntry reads the head of an entry, or nil.
func (c *logConn) expectEntry() (there bool, err error) {
	h, err := c.head()
	switch {
	case err != nil:
		return false, err
	case h.n == -1 && (h.kind == '$' || h.kind == '*'):
		return false, nil
	case h.kind != '*' || h.n != 2:
		return false, c.bad("not an id and fields")
	}
	return true, nil
}

// size is what an entry counts when it is held in memory.
func (e *Entry) size() int64 {
	return int64(len(e.User) + len(e.Topic) + len(e.Payload) + len(e.order) + entryCost)
}

// entry reads an id and fields: ch and data of a message, or ctl of a control command. Other
// fields are the app's own. What is over its bound is not held.
func (c *logConn) entry(what keeping) (e Entry, weight int64, err error) {
	if e.ID, err = c.id(); err != nil {
		return e, 0, err
	}
	fields, err := c.expect('*')
	if err == nil && (fields < 0 || fields%2 != 0) {
		err = c.bad("not names and values")
	}
	if err != nil {
		return e, 0, err
	}
	var m message
	for range fields / 2 {
		c.hash.Reset()
		n, err := c.expect('$')
		if err != nil {
			return e, 0, err
		}
		weight += n
		name, err := c.bulk(n, maxFieldName)
		if err != nil {
			return e, 0, err
		}
		_ = c.hash.WriteByte(0)
		if n, err = c.expect('$'); err != nil {
			return e, 0, err
		}
		weight += n
		value, err := c.bulk(n, c.log.keeps(name, what))
		if err != nil {
			return e, 0, err
		}
		e.mark += c.hash.Sum64()
		m.set(name, value, n)
	}
	weight += entryOverhead
	c.log.fill(&e, &m)
	return e, weight, nil
}

// entryOverhead is about what an entry weighs next to its fields.
const entryOverhead = 40
