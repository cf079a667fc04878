package agent

import (
	"hash/fnv"
	"io"
	"math/rand/v2"
	"os"
	"time"
)

// firstWait bounds the first wait after an error; each further one is bounded
// by twice as much.
const firstWait = time.Second

// backoff says how long to wait. Waits after errors are random between a tenth of
// the bound and the bound ("full jitter"), so that agents whose registry comes
// back do not come all at once.
type backoff struct {
	poll0, most time.Duration
	random      *rand.Rand
	errors      int
}

// newBackoff seeds the random part by the host and the configuration, so that
// each host keeps its place among the others.
func newBackoff(o Poll, name string) *backoff {
	seed := o.Seed
	if seed == 0 {
		h := fnv.New64a()
		host, _ := os.Hostname()
		machineID, _ := os.ReadFile("/etc/machine-id")
		io.WriteString(h, host+" "+name+" ")
		h.Write(machineID)
		seed = h.Sum64()
	}
	return &backoff{poll0: o.Interval, most: o.MaxWait, random: rand.New(rand.NewPCG(seed, seed))}
}

func (b *backoff) reset() { b.errors = 0 }

// next returns the wait after one more error in a row.
func (b *backoff) next() time.Duration {
	bound := b.most
	if b.errors < 30 {
		bound = min(bound, firstWait<<b.errors)
	}
	b.errors++
	return bound/10 + b.upTo(bound-bound/10)
}

// poll returns the wait between two polls, spread the one before the first.
func (b *backoff) poll() time.Duration   { return b.poll0 + b.spread() }
func (b *backoff) spread() time.Duration { return b.upTo(b.poll0 / 8) }

func (b *backoff) upTo(d time.Duration) time.Duration {
	return time.Duration(b.random.Int64N(int64(max(d, 0)) + 1))
}
