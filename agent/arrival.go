package agent

import (
	"cmp"
	"fmt"
	"sync"
	"time"

	"deploytools/registry/wire"
)

// Progress says how far the layers of a deployment have come.
type Progress struct {
	Layer string // component:version, the one that comes now
	Bytes int64  // there of all layers that were missing
	Total int64  // of them; 0: the registry has not told
	Rate  int64  // bytes a second, lately
}

// String is for people: "code:v2: 1.5 of 30.0 MiB (5%), 0.3 MiB/s".
func (p Progress) String() string {
	const mib = 1 << 20
	s := fmt.Sprintf("%s: %.1f MiB", p.Layer, float64(p.Bytes)/mib)
	if p.Total > 0 {
		s = fmt.Sprintf("%s: %.1f of %.1f MiB (%d%%)", p.Layer, float64(p.Bytes)/mib, float64(p.Total)/mib, p.Percent())
	}
	return s + fmt.Sprintf(", %.1f MiB/s", float64(p.Rate)/mib)
}

// Percent returns how much of Total is there; 0 where that is not known.
func (p Progress) Percent() int64 {
	return int64(100 * float64(min(p.Bytes, p.Total)) / float64(max(p.Total, 1)))
}

// Progress returns how far the layers have come; nil: none is being fetched.
// Between two tries, and of a fetch that was cut, it says what there is.
func (a *Agent) Progress() *Progress {
	a.arrival.mu.Lock()
	defer a.arrival.mu.Unlock()
	if a.arrival.now.Layer == "" {
		return nil
	}
	p := a.arrival.now
	return &p
}

// How often a fetch that takes long is told. What is shorter than the first
// time is not told at all.
const (
	arrivalTold   = 5 * time.Second
	arrivalLogged = 30 * time.Second
)

// arrival watches the bytes of a fetch.
type arrival struct {
	mu  sync.Mutex // guards now
	now Progress

	// The machine's own.
	told   time.Time
	logged time.Time
	last   int64 // Progress.Bytes when it was told
}

// expect begins a fetch of these layers.
func (r *arrival) expect(missing []wire.Layer) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now, r.told, r.logged, r.last = Progress{}, time.Now(), time.Now(), 0
	for _, l := range missing {
		if l.Size == 0 {
			r.now.Total = 0
			return
		}
		r.now.Total += l.Size
	}
}

// begin begins a layer of which have bytes are there.
func (r *arrival) begin(l wire.Layer, have int64) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Layer = l.Name + ":" + l.Version
	r.now.Bytes += have
	r.last += have
}

// over ends a fetch.
func (r *arrival) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = Progress{}
}

// arrivalWriter tells of the bytes that are written to it.
type arrivalWriter struct{ a *Agent }

// Write counts p.
func (w arrivalWriter) Write(p []byte) (int, error) {
	r := &w.a.arrival
	r.mu.Lock()
	r.now.Bytes += int64(len(p))
	passed := time.Since(r.told)
	if passed < arrivalTold {
		r.mu.Unlock()
		return len(p), nil
	}
	r.now.Rate = int64(float64(r.now.Bytes-r.last) / passed.Seconds())
	r.last, r.told = r.now.Bytes, r.told.Add(passed)
	now := r.now
	r.mu.Unlock()
	w.a.tell(w.a.status() + ", " + now.String())
	if time.Since(r.logged) >= arrivalLogged {
		r.logged = time.Now()
		w.a.log().Info("layer arriving", "configuration", w.a.o.Name, "layer", now.Layer,
			"bytes", now.Bytes, "size", cmp.Or(now.Total, -1), "rate", now.Rate)
	}
	return len(p), nil
}
