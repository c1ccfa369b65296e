package auth

import (
	"cmp"
	"context"
	"errors"
	"log/slog"
	"slices"
	"sync"
	"time"
)

// keySets are the JWK sets of all issuers. A token is valid if a key of any set verifies it. Every set is fetched on its
// own, so one that is unavailable does not delay the others.
type keySets []*jwks

func startKeySets(urls []string, timeout time.Duration, log *slog.Logger) (sets keySets, err error) {
	for _, u := range urls {
		j, err := newJWKS(u, timeout, log)
		if err != nil {
			return nil, err
		}
		sets = append(sets, j)
	}
	for _, j := range sets {
		j.start()
	}
	return sets, nil
}

func (s keySets) close() {
	for _, j := range s {
		j.close()
	}
}

// verify calls check with the known keys of each set. If that fails, it calls check with the keys of later fetches of
// all sets. It returns an error of check if each set has been fetched since the token was first received. That is a
// permanent rejection. Otherwise the missing keys might verify the token: it returns a temporary rejection.
func (s keySets) verify(ctx context.Context, raw string, check func([]verifyKey) error) error {
	errs, numbers := make([]error, len(s)), make([]uint64, len(s))
	for i, j := range s {
		var keys []verifyKey
		if keys, numbers[i] = j.known(); keys != nil {
			if errs[i] = check(keys); errs[i] == nil {
				return nil
			}
		}
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	var wg sync.WaitGroup
	for i, j := range s {
		wg.Go(func() {
			if errs[i] = j.verifyLater(ctx, raw, numbers[i], errs[i], check); errs[i] == nil {
				cancel() // without waiting for a set that is unavailable
			}
		})
	}
	wg.Wait()
	return mostLenient(errs)
}

// mostLenient returns the result for a token from the results of all sets: nil if one set accepts it, a temporary error if
// one set is unavailable, otherwise the error of the set that has its key.
func mostLenient(errs []error) error {
	return slices.MaxFunc(errs, func(a, b error) int { return cmp.Compare(lenience(a), lenience(b)) })
}

func lenience(err error) int {
	switch {
	case err == nil:
		return 4
	case errors.Is(err, errNoKeys):
		return 3
	case !IsPermanent(err):
		return 2
	case !errors.Is(err, errNotInSet):
		return 1
	}
	return 0
}

// refetch fetches all sets at the same time. The error joins those of the sets, with their URLs if there are several.
func (s keySets) refetch(ctx context.Context) (changed bool, err error) {
	results, errs := make([]bool, len(s)), make([]error, len(s))
	var wg sync.WaitGroup
	for i, j := range s {
		wg.Go(func() { results[i], errs[i] = j.refetch(ctx) })
	}
	wg.Wait()
	for i, j := range s {
		changed = changed || results[i]
		if errs[i] != nil && len(s) > 1 {
			errs[i] = describedError{errs[i], j.logURL + ": " + errs[i].Error()}
		}
	}
	return changed, errors.Join(errs...)
}

// A KeySet describes the keys at a URL in JWKSURLs.
type KeySet struct {
	Usable  int
	Ignored []IgnoredKey
}

// FetchKeySet fetches the key set at a URL once, to inspect it. It blocks for timeout at most. If it returns an error,
// the set may contain ignored keys. The error does not contain the URL.
func FetchKeySet(ctx context.Context, url string, timeout time.Duration) (KeySet, error) {
	j, err := newJWKS(url, timeout, slog.New(slog.DiscardHandler))
	if err != nil {
		return KeySet{}, err
	}
	defer j.close()
	keys, ignored, err := j.download(ctx)
	return KeySet{len(keys), ignored}, err
}
