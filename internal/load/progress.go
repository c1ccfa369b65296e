package load

import (
	"fmt"
	"time"
)

// reportProgress reports the progress until stop is called. After stop returns, it does not call Progress any more.
func (r *run) reportProgress() (stop func()) {
	if r.cfg.Progress == nil {
		return func() {}
	}
	ending, ended := make(chan struct{}), make(chan struct{})
	go func() {
		defer close(ended)
		ticker := time.NewTicker(200 * time.Millisecond)
		defer ticker.Stop()
		for {
			select {
			case <-ending:
				return
			case <-ticker.C:
				r.cfg.Progress(r.progress())
			}
		}
	}()
	return func() {
		close(ending)
		<-ended
	}
}

func (r *run) progress() Progress {
	p, ok := r.now.Load().(Progress)
	if !ok {
		return Progress{}
	}
	elapsed := time.Since(p.begin)
	t := r.tally
	t.mu.Lock()
	defer t.mu.Unlock()
	switch p.Phase {
	case "connect":
		p.Done = t.opened + t.unopened
		p.Note = fmt.Sprintf("%d open, %d failed", t.streams, t.unopened)
	default:
		p.Done = min(elapsed.Milliseconds(), p.Total)
		p.Note = fmt.Sprintf("%d open, %d delivered", t.streams, t.delivered)
	}
	return p
}

// phase records the start of a phase.
func (r *run) phase(name string, total int64) {
	r.now.Store(Progress{Phase: name, Total: total, begin: time.Now()})
}
