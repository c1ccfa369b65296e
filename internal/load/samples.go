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

// Samples are the figures of one or more hubs by name, added up over labels. Those
// with a reason are there by name{reason="…"} too.
type Samples map[string]float64

// Scrape reads the /metrics of the admin listeners at these URLs and adds them up. secure is for
// https URLs; nil: the system's authorities are trusted. It uses no proxy and follows no redirect.
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
	shown := r.URL.Redacted() // reports are kept
	answer, err := client.Do(r)
	if err != nil {
		if ue := new(url.Error); errors.As(err, &ue) {
			err = ue.Err
		}
		return fmt.Errorf("%s: %w", shown, err)
	}
	defer answer.Body.Close()
	if answer.StatusCode != http.StatusOK {
		return fmt.Errorf("%s: %s", shown, answer.Status)
	}
	if err := s.add(answer.Body); err != nil {
		return fmt.Errorf("%s: %w", shown, err)
	}
	if _, ok := s["usercast_clients"]; !ok {
		return fmt.Errorf("%s: these are not the metrics of a hub", shown)
	}
	return nil
}

// add reads Prometheus' text format.
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
				return fmt.Errorf("%q cannot be read", line)
			}
			labels := line[i : j+1]
			name, rest, ok = line[:i], strings.TrimSpace(line[j+1:]), true
			if v, err := value(rest); err == nil && strings.HasPrefix(labels, `{reason="`) {
				s[name+labels] += v
			}
		}
		v, err := value(rest)
		if !ok || err != nil {
			return fmt.Errorf("%q cannot be read", line)
		}
		if strings.HasSuffix(name, "_bucket") {
			continue
		}
		s[name] += v
	}
	return lines.Err()
}

// value reads a value that a timestamp may follow.
func value(s string) (float64, error) {
	s, _, _ = strings.Cut(s, " ")
	return strconv.ParseFloat(s, 64)
}
