//go:build linux

package local

import (
	"fmt"
	"os"
	"sync"
	"time"
)

// steps tells a person what is being done and keeps the times for a benchmark.
type steps struct {
	mutex  sync.Mutex
	start  time.Time
	last   time.Time
	Phases []phase `json:"phases"`
	Total  float64 `json:"total_seconds"`
}

type phase struct {
	Name    string  `json:"name"`
	Seconds float64 `json:"seconds"`
}

func newSteps() *steps {
	now := time.Now()
	return &steps{start: now, last: now}
}

// done ends a phase that began where the one before ended.
func (s *steps) done(name string) {
	s.mutex.Lock()
	defer s.mutex.Unlock()
	now := time.Now()
	s.Phases = append(s.Phases, phase{name, round(now.Sub(s.last))})
	s.last, s.Total = now, round(now.Sub(s.start))
	fmt.Fprintf(os.Stderr, "step %s (%.1f s)\n", name, now.Sub(s.start).Seconds())
}

func round(d time.Duration) float64 { return float64(d.Milliseconds()) / 1000 }
