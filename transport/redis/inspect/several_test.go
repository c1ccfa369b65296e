package inspect

import (
	"slices"
	"strings"
	"testing"

	"usercast/internal/redistest"
	"usercast/transport/redis"
)

func TestAddressOfSeveralServersIsReportedWithTheURL(t *testing.T) {
	t.Parallel()
	files := redistest.NewTLSFiles(t)
	nodes := redistest.StartCluster(t, 2, append(files.Args(), "--tls-cluster", "yes", "--tls-auth-clients", "no")...)
	primary := redistest.Start(t)
	other := redistest.StartReplica(t, primary)
	independent := redistest.Start(t)
	for name, c := range map[string]struct {
		targets       []string
		scheme, query string
		finding, url  string
		level         Level
	}{
		"nodes of a cluster with TLS": {[]string{nodes[0].TLSAddr(), nodes[1].TLSAddr()}, "rediss", "?skip_verify=true", "redis-several", "rediss+cluster://", Warn},
		"nodes of a cluster":          {[]string{nodes[0].Addr(), nodes[1].Addr()}, "redis", "", "redis-several", "redis+cluster://", Warn},
		"one node of a cluster":       {[]string{nodes[0].Addr()}, "redis", "", "redis-cluster-url", "redis+cluster://", Warn},
		"replicas":                    {[]string{primary.Addr(), other.Addr()}, "redis", "", "redis-several", "redis+sentinel://", Warn},
		"primaries":                   {[]string{primary.Addr(), independent.Addr()}, "redis", "", "redis-several", "only one of them", Fail},
		"one server":                  {[]string{primary.Addr()}, "redis", "", "", "", OK},
	} {
		t.Run(name, func(t *testing.T) {
			relay := redistest.StartRelay(t, c.targets[0])
			relay.SetTargets(c.targets...)
			found := run(t, parse(t, c.scheme+"://"+relay.Addr()+c.query, redis.ServerOptions{}), nil)
			about := slices.DeleteFunc(slices.Clone(found), func(f Finding) bool { return f.Name != "redis-several" && f.Name != "redis-cluster-url" })
			switch {
			case c.finding == "" && len(about) == 0:
			case len(about) != 1 || about[0].Name != c.finding || about[0].Level != c.level || !strings.Contains(about[0].Do, c.url):
				t.Errorf("findings %+v", found)
			case strings.HasSuffix(c.url, "+cluster://") && !strings.Contains(about[0].Do, c.url+relay.Addr()):
				t.Errorf("%s does not contain the address", about[0].Do)
			}
		})
	}
}
