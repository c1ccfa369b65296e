package redis

import (
	"context"
	"crypto/rand"
	"hash/maphash"
	"strconv"
	"time"

	goredis "github.com/redis/go-redis/v9"

	"usercast/hub"
	"usercast/transport/redis/internal/acl"
	"usercast/transport/redis/internal/resp"
	"usercast/transport/redis/internal/topology"
)

// Bounds of one reply with entries. Redis bounds a reply only by the number of entries, which can
// have any size.
const (
	// readCount is the maximum number of entries per request. With a few hundred bytes per entry,
	// the round trip is then a small part of the work.
	readCount = 200
	// pageBytes is the intended size of a reply in bytes, estimated from the size of earlier
	// entries. It is also how much of a larger reply is kept. At least two entries are always kept,
	// because the first may be known already.
	pageBytes = 1 << 20
	// maxGrowth limits how many times more entries are requested than the last time, because the
	// size of the next ones is not known.
	maxGrowth = 4
)

const (
	maxText      = 1 << 20         // bytes of INFO
	streamBuffer = resp.ReadBuffer // also the longest name of a channel that is kept
)

// A streamConn reads entries of one Redis stream over a connection that go-redis made. It parses
// replies itself, because go-redis holds a whole reply in memory, whatever its size. After an
// error other than an error reply, it cannot be used. For one goroutine.
type streamConn struct {
	feed   *StreamFeed
	link   *topology.Conn
	asking bool // the node imports the slot: each command is preceded by ASKING
	w      *resp.Writer
	r      *resp.Reader
	hash   maphash.Hash

	server topology.Identity // as of the last request
	token  string            // replaces the identity of a server that does not report it

	// The size of the latest entries; 0: not known.
	count  int   // how many to request
	weight int64 // average size of an entry in bytes
}

// dial connects to the server of the stream, or to the target of a redirection. The connection ends
// when nothing arrives for longer than patience, or when ctx ends.
func (f *StreamFeed) dial(ctx context.Context, to topology.Target, patience time.Duration) (*streamConn, error) {
	c := &streamConn{feed: f, asking: to.Asking, count: 1}
	c.hash.SetSeed(fingerprintSeed)
	c.link = f.server.NewConn(ctx, to, func(ctx context.Context, cn *goredis.Conn) (err error) {
		c.server, err = topology.Introduce(ctx, cn, f.missing)
		c.nameServer()
		return err
	})
	c.link.Patience = patience
	socket, err := c.link.Socket()
	if err != nil {
		c.link.Close()
		return nil, err
	}
	c.r = resp.NewReader(socket)
	c.w = resp.NewWriter(socket, f.server.AnswerTimeout(), 4096)
	return c, nil
}

// nameServer assigns an identity, for this connection only, to a server that does not report one.
func (c *streamConn) nameServer() {
	if c.server.RunID == "" {
		if c.token == "" {
			c.token = rand.Text()
		}
		c.server.Data = c.token
	}
}

// identify requests the identity of the server again.
func (c *streamConn) identify() (err error) {
	c.server, err = topology.Identify(func(section string) (string, error) {
		text, err := c.info(section)
		return text, acl.Optional(err, acl.PermissionInfo, c.feed.missing)
	})
	c.nameServer()
	return err
}

func (c *streamConn) close() { c.link.Close() }

// send writes a command. The caller reads its reply with begin.
func (c *streamConn) send(args ...string) error {
	if c.asking {
		c.w.Command("ASKING")
	}
	c.w.Command(args...)
	c.r.Command = args[0]
	if args[0] == "XINFO" {
		c.r.Command += " " + args[1]
	}
	return c.w.Flush()
}

// begin reads the first line of a command's reply. An error reply is a *resp.ReplyError.
func (c *streamConn) begin() (resp.Head, error) {
	if c.asking {
		if _, err := c.r.Head(); err != nil { // reply to ASKING; if it is an error, the reply to the command is too
			return resp.Head{}, err
		}
	}
	return c.r.Reply()
}

// request sends a command and reads the first line of its reply.
func (c *streamConn) request(args ...string) (resp.Head, error) {
	if err := c.send(args...); err != nil {
		return resp.Head{}, err
	}
	return c.begin()
}

// info returns a section of INFO.
func (c *streamConn) info(section string) (string, error) {
	h, err := c.request("INFO", section)
	if err != nil {
		return "", err
	}
	if h.Kind != '$' || h.N > maxText {
		return "", c.r.Bad("not a string")
	}
	return c.r.Bulk(h.N, maxText, nil)
}

// length requests the number of entries.
func (c *streamConn) length() (uint64, error) {
	h, err := c.request("XLEN", c.feed.cfg.Key)
	if err == nil && h.Kind != ':' {
		err = c.r.Bad("not a number")
	}
	return uint64(h.N), err
}

// state requests XINFO STREAM. It does not keep the first and the last entry, which are in the reply.
func (c *streamConn) state() (info streamInfo, err error) {
	h, err := c.request("XINFO", "STREAM", c.feed.cfg.Key)
	if goredis.HasErrorPrefix(err, "no such key") {
		return streamInfo{counts: true}, nil
	}
	if err != nil {
		return info, err
	}
	if h.Kind != '*' || h.N < 0 || h.N%2 != 0 {
		return info, c.r.Bad("not a list of names and values")
	}
	for range h.N / 2 {
		name, err := c.r.String(streamBuffer)
		if err != nil {
			return info, err
		}
		switch name {
		case "length":
			info.length, err = c.r.Count()
		case "entries-added":
			info.added, err = c.r.Count()
		case "last-generated-id":
			info.last, err = c.id()
		case "max-deleted-entry-id":
			info.counts = true
			info.deleted, err = c.id()
		case "first-entry":
			var there bool
			if there, err = c.expectEntry(); there {
				var e entry
				e, _, err = c.entry(keepNothing)
				info.first = e.ID
			}
		default:
			err = c.r.Skip()
		}
		if err != nil {
			return info, err
		}
	}
	return info, nil
}

func (c *streamConn) id() (hub.ID, error) {
	text, err := c.r.String(64)
	if err != nil {
		return hub.ID{}, err
	}
	return parseID(text)
}

// read requests entries between two ids, both included, newest first with backwards. budget is how
// many bytes the caller can use.
func (c *streamConn) read(from, to string, backwards bool, budget int64, what keeping) (page, error) {
	command := "XRANGE"
	if backwards {
		command = "XREVRANGE"
	}
	most := c.most(budget) + 1 // a page may begin with the last entry of the previous page
	h, err := c.request(command, c.feed.cfg.Key, from, to, "COUNT", strconv.Itoa(most))
	if err != nil {
		return page{}, err
	}
	return c.page(h, most, what)
}

// wait requests entries later than after, and waits for the first one for up to block.
func (c *streamConn) wait(after hub.ID, block time.Duration) (p page, err error) {
	most := c.most(pageBytes)
	h, err := c.request("XREAD", "COUNT", strconv.Itoa(most), "BLOCK", strconv.FormatInt(block.Milliseconds(), 10),
		"STREAMS", c.feed.cfg.Key, after.String())
	if err != nil || h.Kind == '*' && h.N == -1 { // no entry within block
		return p, err
	}
	// The reply is an array of streams, each with a key and its entries.
	if h.Kind != '*' || h.N != 1 {
		return p, c.r.Bad("not one stream")
	}
	n, err := c.r.Expect('*')
	if err == nil && n != 2 {
		err = c.r.Bad("not a key and entries")
	}
	if err == nil {
		err = c.r.Skip()
	}
	if err == nil {
		h, err = c.r.Head()
	}
	if err != nil {
		return p, err
	}
	return c.page(h, most, keepAll)
}

// places returns, for each id, the entry with that id or the next one.
func (c *streamConn) places(ids []hub.ID) ([]entry, error) {
	for _, id := range ids { // a few short commands: they fit into the socket buffers
		if err := c.send("XRANGE", c.feed.cfg.Key, id.String(), "+", "COUNT", "1"); err != nil {
			return nil, err
		}
	}
	found := make([]entry, len(ids))
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

// fingerprintAt returns the fingerprint of the entry with an id, or 0 if it does not exist.
func (c *streamConn) fingerprintAt(id hub.ID) (uint64, error) {
	h, err := c.request("XRANGE", c.feed.cfg.Key, id.String(), id.String(), "COUNT", "1")
	if err != nil {
		return 0, err
	}
	p, err := c.page(h, 0, keepNothing)
	if err != nil || len(p.entries) == 0 {
		return 0, err
	}
	return p.entries[0].fingerprint, nil
}
