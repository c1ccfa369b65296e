package topology

import (
	"cmp"
	"errors"
	"fmt"
	"maps"
	"net"
	"net/url"
	"slices"
	"strconv"
	"strings"
	"sync/atomic"
	"time"

	goredis "github.com/redis/go-redis/v9"
)

// A Server is the address of one Redis, with credentials and timeouts. Redis is a primary at a fixed
// address, a primary that Sentinels report, or a cluster. Safe for concurrent use.
type Server struct {
	// Immutable after Parse.
	network, addr string
	login         credentials
	passwordFile  bool        // the password is from --redis-password-file
	database      int         // of keys; channels do not belong to a database
	tls           *encryption // nil: not encrypted
	dialTimeout   time.Duration
	answerTimeout time.Duration
	isSentinel    bool // commands are for a Sentinel

	epoch atomic.Uint64 // see Renew

	locator locator
	// At most one of them is set and is the locator. Otherwise the primary is at addr.
	sentinels *sentinels
	cluster   *cluster
}

// Options are those of redis.ServerOptions.
type Options struct {
	Password, SentinelPassword         string
	TLSCAFile, TLSCertFile, TLSKeyFile string
	DialTimeout, AnswerTimeout         time.Duration
}

var errUnreadable = errors.New("cannot parse the Redis URL; percent-encode / ? # @ : % in the password (%2F %3F %23 %40 %3A %25)")

var errHosts = errors.New("the Redis URL must list its hosts as //host:port,host:port")

// Parse reads a URL: see redis.ParseServer.
func Parse(rawURL string, opts Options) (*Server, error) {
	var others []string // all hosts except the first
	for _, scheme := range []string{"redis+sentinel://", "rediss+sentinel://", "redis+cluster://", "rediss+cluster://"} {
		if strings.HasPrefix(rawURL, scheme) {
			rawURL, others = cutHosts(rawURL)
		}
	}
	if !beginsWithScheme(rawURL) {
		return nil, errScheme
	}
	u, err := url.Parse(rawURL)
	if err != nil || strings.Contains(rawURL, "#") {
		return nil, errUnreadable
	}
	s := &Server{
		dialTimeout:   cmp.Or(opts.DialTimeout, 2*time.Second),
		answerTimeout: cmp.Or(opts.AnswerTimeout, 3*time.Second),
	}
	kind := strings.Replace(u.Scheme, "rediss", "redis", 1)
	if kind != u.Scheme {
		s.tls = &encryption{caFile: opts.TLSCAFile, certFile: opts.TLSCertFile, keyFile: opts.TLSKeyFile}
	}
	inURL, _ := u.User.Password()
	s.login.user = u.User.Username()
	s.SetPassword(cmp.Or(opts.Password, inURL))
	s.passwordFile = opts.Password != ""
	if s.login.user != "" && s.login.password() == "" {
		return nil, errors.New("the Redis URL has a user but not a password; use redis://user:password@host, or redis://:password@host for the default user")
	}
	switch kind {
	case "redis":
		err = s.parseTCP(u)
	case "unix":
		err = s.parseUnix(u)
	case "redis+sentinel":
		err = s.parseSentinels(u, others)
	case "redis+cluster":
		err = s.parseCluster(u, others)
	default:
		return nil, errScheme
	}
	if err == nil {
		err = s.parseQuery(u.Query())
	}
	if err == nil {
		err = s.checkOptions(opts)
	}
	if err != nil {
		return nil, err
	}
	return s, nil
}

var errScheme = errors.New("the Redis URL must begin with redis://, rediss://, unix://, redis+sentinel://, rediss+sentinel://, redis+cluster:// or rediss+cluster://, without quotes")

// beginsWithScheme reports whether a URL begins with letters and a colon. One in quotes or without a scheme does not, and
// url.Parse would return an error that is about something else.
func beginsWithScheme(rawURL string) bool {
	scheme, _, found := strings.Cut(rawURL, ":")
	return found && scheme != "" && strings.Trim(strings.ToLower(scheme), "abcdefghijklmnopqrstuvwxyz+") == ""
}

// checkOptions reads the files of opts, and checks that the options apply to the URL.
func (s *Server) checkOptions(opts Options) error {
	if s.sentinels != nil {
		login := &s.sentinels.login
		login.setPassword(cmp.Or(opts.SentinelPassword, login.password()))
		if login.user != "" && login.password() == "" {
			return errors.New("sentinel_user in the Redis URL requires --redis-sentinel-password-file")
		}
	} else if opts.SentinelPassword != "" {
		return errors.New("--redis-sentinel-password-file requires a redis+sentinel:// or rediss+sentinel:// URL")
	}
	for _, file := range []struct{ flag, name string }{
		{"--redis-tls-ca", opts.TLSCAFile}, {"--redis-tls-cert", opts.TLSCertFile}, {"--redis-tls-key", opts.TLSKeyFile},
	} {
		if file.name != "" && s.tls == nil {
			return errors.New(file.flag + " requires that each --redis URL begins with rediss:// or rediss+")
		}
	}
	if (opts.TLSCertFile == "") != (opts.TLSKeyFile == "") {
		return errors.New("--redis-tls-cert and --redis-tls-key must be set together")
	}
	if s.tls == nil {
		return nil
	}
	_, err := s.tls.reload()
	return err
}

// Name is the value of the label redis in metrics and logs.
func (s *Server) Name() string {
	if s.sentinels != nil {
		return s.addr + "/" + s.sentinels.primary
	}
	return s.addr
}

// SetPassword sets the password of new connections. It does not affect open ones.
func (s *Server) SetPassword(password string) { s.login.setPassword(password) }

// SetSentinelPassword sets the password of new connections to Sentinels. Without Sentinels, it does nothing.
func (s *Server) SetSentinelPassword(password string) {
	if s.sentinels != nil {
		s.sentinels.login.setPassword(password)
	}
}

// ReloadTLS reads the files with certificates and the key, and reports whether one has changed. A file
// that is invalid keeps its previous value.
func (s *Server) ReloadTLS() (changed bool, err error) {
	if s.tls == nil {
		return false, nil
	}
	return s.tls.reload()
}

// ReportReload sets a function that is called after a new connection has read TLS files that had
// changed. err says why one of them was not used. The function must not block.
func (s *Server) ReportReload(report func(files string, err error)) {
	if s.tls != nil {
		s.tls.report.Store(&report)
	}
}

// Redact removes passwords from an error's text.
func (s *Server) Redact(err error) error {
	err = s.login.redact(err)
	if s.sentinels != nil {
		err = s.sentinels.login.redact(err)
	}
	return err
}

// UserName is the name of the Redis user.
func (s *Server) UserName() string { return cmp.Or(s.login.user, "default") }

// Fault describes an error. live means that a feed was connected when the error occurred; otherwise the
// connection could not be made.
func (s *Server) Fault(err error, live bool) *Fault {
	f, known := newFault(err, live, s.network == "unix")
	if !known {
		s.advise(f, err)
		f.Err = s.Redact(err)
	}
	return f
}

// Denied describes an error that may be a missing permission: doing is the operation, grant the missing
// ACL rules. If the error already is a Fault, Denied returns it, because it may be that of another
// command.
func (s *Server) Denied(err error, doing, grant string) *Fault {
	var known *Fault
	if errors.As(err, &known) {
		return known
	}
	f := s.Fault(err, false)
	switch {
	case f.Reason == "error" && goredis.HasErrorPrefix(err, "unknown command"):
		f.Reason = "command"
		f.Problem = "this server does not have the command to " + doing
		f.Advice = "use a server that has it, and check that rename-command or a proxy does not remove it"
	case goredis.IsPermissionError(err):
		f.Reason = "right"
		f.Problem = "user " + s.UserName() + " is not allowed to " + doing
		f.Advice = "ACL SETUSER " + s.UserName() + " " + grant
	}
	return f
}

// IsCluster reports whether the server is a cluster. Exactly one of IsCluster, HasSentinels and Fixed
// returns true.
func (s *Server) IsCluster() bool { return s.cluster != nil }

// HasSentinels reports whether Sentinels report the address of the primary.
func (s *Server) HasSentinels() bool { return s.sentinels != nil }

// Fixed reports whether the server has a fixed address.
func (s *Server) Fixed() bool { return s.sentinels == nil && s.cluster == nil }

// Addr returns the first address in the URL.
func (s *Server) Addr() string { return s.addr }

// Database returns the number of the database for keys.
func (s *Server) Database() int { return s.database }

// AnswerTimeout returns Options.AnswerTimeout.
func (s *Server) AnswerTimeout() time.Duration { return s.answerTimeout }

// Epoch changes with each Renew. A connection from an earlier epoch may go to another server.
func (s *Server) Epoch() uint64 { return s.epoch.Load() }

// Renew makes Commands replace its existing connections. A feed calls it when new connections may go to
// another server.
func (s *Server) Renew() { s.epoch.Add(1) }

// Insecure reports whether TLS is used without verifying the certificate.
func (s *Server) Insecure() bool { return s.tls != nil && s.tls.skipVerify }

func (s *Server) parseTCP(u *url.URL) error {
	s.locator = fixed{s}
	if hidesPassword(u) {
		return errUnreadable
	}
	if u.Opaque != "" || strings.ContainsAny(u.Hostname(), ", ") {
		return errors.New("the Redis URL must have one host, as in redis://host:port")
	}
	var err error
	if s.addr, err = hostPort(u, "6379"); err != nil {
		return err
	}
	s.network = "tcp"
	return s.setDatabase(strings.Trim(u.Path, "/"))
}

// hidesPassword reports whether a password contains an unencoded '/' or '?', which ends the host too
// early: then the '@' is in the path or the query.
func hidesPassword(u *url.URL) bool { return strings.Contains(u.Path+u.RawQuery, "@") }

func hostPort(u *url.URL, defaultPort string) (string, error) {
	port := cmp.Or(u.Port(), defaultPort)
	if n, err := strconv.Atoi(port); err != nil || n < 1 || n > 65535 {
		return "", errors.New("the port in the Redis URL must be a number from 1 to 65535")
	}
	return net.JoinHostPort(cmp.Or(u.Hostname(), "localhost"), port), nil
}

// cutHosts removes all hosts except the first from a URL, so that url.Parse accepts it, and returns the
// others.
func cutHosts(rawURL string) (one string, others []string) {
	scheme, rest, _ := strings.Cut(rawURL, "://")
	end := len(rest)
	if i := strings.IndexAny(rest, "/?#"); i >= 0 {
		end = i
	}
	hosts := strings.Split(rest[strings.LastIndexByte(rest[:end], '@')+1:end], ",")
	before := strings.TrimSuffix(rest[:end], strings.Join(hosts, ","))
	return scheme + "://" + before + hosts[0] + rest[end:], hosts[1:]
}

// parseHosts reads the hosts of a URL with several.
func parseHosts(u *url.URL, others []string, defaultPort string) ([]string, error) {
	if hidesPassword(u) {
		return nil, errUnreadable
	}
	if u.Opaque != "" {
		return nil, errHosts
	}
	addr, err := hostPort(u, defaultPort)
	if err != nil {
		return nil, err
	}
	addrs := []string{addr}
	for _, other := range others {
		o, err := url.Parse("redis://" + other)
		if err != nil || u.Hostname() == "" || o.Hostname() == "" {
			return nil, errHosts
		}
		if addr, err = hostPort(o, defaultPort); err != nil {
			return nil, err
		}
		addrs = append(addrs, addr)
	}
	return addrs, nil
}

func (s *Server) parseUnix(u *url.URL) error {
	s.locator = fixed{s}
	if u.Host != "" || u.Opaque != "" || strings.Trim(u.Path, "/") == "" {
		return errors.New("a unix:// Redis URL needs the absolute path of the socket: unix:///run/redis/redis.sock")
	}
	s.network, s.addr = "unix", u.Path
	return nil
}

func (s *Server) parseQuery(q url.Values) error {
	var unknown []string
	for _, key := range slices.Sorted(maps.Keys(q)) { // the first error is always the same
		var err error
		switch value := q[key][len(q[key])-1]; {
		case key == "db":
			err = s.setDatabase(value)
		case key == "skip_verify" && s.tls == nil:
			err = errors.New("skip_verify in the Redis URL is supported only with rediss://, rediss+sentinel:// and rediss+cluster://")
		case key == "skip_verify":
			s.tls.skipVerify, err = parseBool(key, value)
		case key == "sentinel_tls" && (s.tls == nil || s.sentinels == nil):
			err = errors.New("sentinel_tls in the Redis URL is supported only with rediss+sentinel://")
		case key == "sentinel_tls":
			var encrypted bool
			encrypted, err = parseBool(key, value)
			s.sentinels.cleartext = !encrypted
		case key == "sentinel_user" && s.sentinels != nil:
			s.sentinels.login.user = value
		case key == "sentinel_password" && s.sentinels != nil:
			s.sentinels.login.setPassword(value)
		default:
			unknown = append(unknown, shownParameter(key))
		}
		if err != nil {
			return err
		}
	}
	if len(unknown) == 0 {
		return nil
	}
	slices.Sort(unknown)
	supported := "db"
	if s.tls != nil {
		supported += ", skip_verify"
	}
	if s.sentinels != nil {
		supported += ", sentinel_user, sentinel_password"
	}
	if s.sentinels != nil && s.tls != nil {
		supported += ", sentinel_tls"
	}
	return fmt.Errorf("unknown parameters in the Redis URL: %s; remove them (supported: %s)", strings.Join(slices.Compact(unknown), ", "), supported)
}

func parseBool(key, value string) (bool, error) {
	b, err := strconv.ParseBool(value)
	if err != nil {
		return false, fmt.Errorf("%s in the Redis URL must be true or false", key)
	}
	return b, nil
}

// shownParameter returns the name of a parameter for an error. A name with unusual characters is not shown:
// it may be a part of a password that contains an unencoded '?'.
func shownParameter(key string) string {
	usual := func(r rune) bool {
		return r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r >= '0' && r <= '9' || r == '_' || r == '-'
	}
	if len(key) > 40 || key == "" || strings.ContainsFunc(key, func(r rune) bool { return !usual(r) }) {
		return "one that is not shown, because it may be a part of a password"
	}
	return key
}

// setDatabase parses the database number; "" means that it is not set. A path and a parameter must not
// contradict each other.
func (s *Server) setDatabase(text string) error {
	if text == "" {
		return nil
	}
	n, err := strconv.Atoi(text)
	if err != nil || n < 0 {
		return errors.New("the database in the Redis URL must be a number")
	}
	if s.database != 0 && n != s.database {
		return errors.New("the Redis URL has two database numbers; use either the path or db=")
	}
	if s.cluster != nil && n != 0 {
		return errors.New("a Redis Cluster has only database 0; remove the database from the Redis URL")
	}
	s.database = n
	return nil
}
