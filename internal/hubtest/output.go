package hubtest

import (
	"bytes"
	"strings"
	"sync"
)

// Output collects the output of a program. It is safe for concurrent use.
type Output struct {
	mu  sync.Mutex
	buf bytes.Buffer // guarded by mu
}

func (o *Output) Write(p []byte) (int, error) {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.Write(p)
}

func (o *Output) String() string {
	o.mu.Lock()
	defer o.mu.Unlock()
	return o.buf.String()
}

// Lines returns the lines that contain all the words.
func (o *Output) Lines(words ...string) (lines []string) {
next:
	for line := range strings.Lines(o.String()) {
		for _, word := range words {
			if !strings.Contains(line, word) {
				continue next
			}
		}
		lines = append(lines, line)
	}
	return lines
}

// tail returns the last part, for the message of a failed test.
func (o *Output) tail() string {
	s := o.String()
	return s[max(0, len(s)-4000):]
}
