package agent

import (
	"fmt"
	"sync"
	"time"

	"deploytools/registry/wire"
)

// Progress says how far the layers of a deployment have come.
type Progress struct {
	Layer string `json:"layer"`           // component:version, the one that comes now
	Bytes int64  `json:"bytes"`           // there of all layers that were missing
	Total int64  `json:"total,omitempty"` // of them; 0: the registry has not told
	Rate  int64  `json:"rate"`            // bytes a second, lately
}

// String is for people: "code:v2, 1.5 MiB of 30.0 MiB (5%), 300.1 KiB/s".
func (p Progress) String() string {
	s := p.Layer + ", " + Size(p.Bytes)
	if p.Total > 0 {
		s += fmt.Sprintf(" of %s (%d%%)", Size(p.Total), p.Percent())
	}
	return s + ", " + Size(p.Rate) + "/s"
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

// How often a fetch that takes long is measured, told and logged. What is
// shorter is not.
const (
	arrivalMeasured = time.Second
	arrivalTold     = 5 * time.Second
	arrivalLogged   = 30 * time.Second
)

// arrival watches the bytes of a fetch.
type arrival struct {
	mu  sync.Mutex // guards now
	now Progress

	// Of the one goroutine that fetches.
	status   string // of the machine, when it began
	told     time.Time
	logged   time.Time
	measured time.Time
	last     int64 // Progress.Bytes then
}

// expect begins a fetch of these layers.
func (r *arrival) expect(missing []wire.Layer) {
	begun := time.Now()
	r.told, r.logged, r.measured, r.last = begun, begun, begun, 0
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = Progress{}
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
	r.last += have
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Layer = l.Name + ":" + l.Version
	r.now.Bytes += have
}

// over ends a fetch.
func (r *arrival) over() {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now = Progress{}
}

// count counts n bytes more.
func (r *arrival) count(n int) Progress {
	passed := time.Since(r.measured)
	r.mu.Lock()
	defer r.mu.Unlock()
	r.now.Bytes += int64(n)
	if passed >= arrivalMeasured {
		r.now.Rate = int64(float64(r.now.Bytes-r.last) / passed.Seconds())
		r.measured, r.last = time.Now(), r.now.Bytes
	}
	return r.now
}

// arrivalWriter tells of the bytes that are written to it.
type arrivalWriter struct{ a *Agent }

// Write counts p.
func (w arrivalWriter) Write(p []byte) (int, error) {
	r, o := &w.a.arrival, w.a.o.Observe
	now := r.count(len(p))
	if time.Since(r.told) >= arrivalTold && o.Notify != nil {
		r.told = time.Now()
		o.Notify(r.status + ": " + now.String())
	}
	if time.Since(r.logged) >= arrivalLogged {
		r.logged = time.Now()
		o.Log.Info("layer arriving", "layer", now.Layer, "bytes", now.Bytes, "total", now.Total, "rate", now.Rate)
	}
	return len(p), nil
}
