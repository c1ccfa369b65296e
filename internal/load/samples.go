package load

import (
	"bufio"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"strconv"
	"strings"
	"time"
)

// Samples are the metrics of one or more hubs by name, added up over labels. Metrics with a label reason are also present
// as name{reason="…"}.
type Samples map[string]float64

// Scrape reads the /metrics of the admin listeners at these URLs and adds them up. secure configures https; nil means that
// the CAs of the system are trusted. Scrape does not use a proxy and does not follow redirects.
func Scrape(ctx context.Context, urls []string, secure *tls.Config) (Samples, error) {
	client := &http.Client{
		Transport:     &http.Transport{DisableKeepAlives: true, TLSClientConfig: secure},
		Timeout:       5 * time.Second,
		CheckRedirect: func(*http.Request, []*http.Request) error { return http.ErrUseLastResponse },
	}
	s := make(Samples)
	for _, u := range urls {
		if err := s.scrape(ctx, client, strings.TrimSuffix(u, "/")+"/metrics"); err != nil {
			return nil, err
		}
	}
	return s, nil
}

func (s Samples) scrape(ctx context.Context, client *http.Client, metrics string) error {
	r, err := http.NewRequestWithContext(ctx, http.MethodGet, metrics, nil)
	if err != nil {
		return err
	}
	shown := r.URL.Redacted() // without the password, because reports are stored
	resp, err := client.Do(r)
	if err != nil {
		if ue := new(url.Error); errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("%s: %w", shown, err)
	}
	defer resp.Body.Close()
	if resp.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", shown, resp.Status)
	}
	if err := s.add(resp.Body); err != nil {
		return fmt.Errorf("%s: %w", shown, err)
	}
	if _, ok := s["usercast_clients"]; !ok {
		return fmt.Errorf("%s: not the metrics of a usercast hub", shown)
	}
	return nil
}

// add reads the text format of Prometheus.
func (s Samples) add(r io.Reader) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		line := lines.Text()
		if line == "" || line[0] == '#' {
			continue
		}
		name, rest, ok := strings.Cut(line, " ")
		if i := strings.IndexByte(line, '{'); i >= 0 && i < len(name) {
			j := strings.LastIndexByte(line, '}')
			if j < i {
				return fmt.Errorf("cannot parse %q", line)
			}
			labels := line[i : j+1]
			name, rest, ok = line[:i], strings.TrimSpace(line[j+1:]), true
			if v, err := value(rest); err == nil && strings.HasPrefix(labels, `{reason="`) {
				s[name+labels] += v
			}
		}
		v, err := value(rest)
		if !ok || err != nil {
			return fmt.Errorf("cannot parse %q", line)
		}
		if strings.HasSuffix(name, "_bucket") {
			continue
		}
		s[name] += v
	}
	return lines.Err()
}

// value reads a value, which a timestamp can follow.
func value(s string) (float64, error) {
	s, _, _ = strings.Cut(s, " ")
	return strconv.ParseFloat(s, 64)
}
