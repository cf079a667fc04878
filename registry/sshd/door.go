package sshd

import (
	"errors"
	"net"
	"net/netip"
	"slices"
	"sync"
	"time"
)

// Who may stand at the door, that is, be connected without having
// authenticated.
const (
	maxWaiting       = 64
	maxWaitingSource = 16              // of one address, or IPv6 network of /64
	patience         = 3 * time.Second // after that one has to make room
)

var errCrowded = errors.New("too many connections that have not authenticated")

// door counts the connections that have not authenticated. When there are too
// many, a new one takes the place of the oldest, if that has been there for some
// time: most handshakes take less than a second, so those who only hold
// connections open do not keep the others out, and many honest ones who come at
// once do not cut each other off.
type door struct {
	mu      sync.Mutex
	waiting []*visitor // the oldest first
	closed  bool
}

type visitor struct {
	conn   net.Conn
	source netip.Prefix
	since  time.Time
}

func newDoor() *door { return &door{} }

// enter lets conn in, to be taken out by leave, or says why not.
func (d *door) enter(conn net.Conn) (*visitor, error) {
	v := &visitor{conn, sourceOf(conn.RemoteAddr()), time.Now()}
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.closed {
		return nil, errStopping
	}
	same := func(w *visitor) bool { return w.source == v.source }
	anyone := func(*visitor) bool { return true }
	if !d.room(same, maxWaitingSource, v.since) || !d.room(anyone, maxWaiting, v.since) {
		return nil, errCrowded
	}
	d.waiting = append(d.waiting, v)
	return v, nil
}

// room makes sure that fewer than limit visitors of a kind wait.
func (d *door) room(kind func(*visitor) bool, limit int, now time.Time) bool {
	n := 0
	for _, w := range d.waiting {
		if kind(w) {
			n++
		}
	}
	if n < limit {
		return true
	}
	i := slices.IndexFunc(d.waiting, kind)
	if now.Sub(d.waiting[i].since) < patience {
		return false
	}
	d.waiting[i].conn.Close()
	d.waiting = slices.Delete(d.waiting, i, i+1)
	return true
}

// leave says that v has authenticated or is gone.
func (d *door) leave(v *visitor) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if i := slices.Index(d.waiting, v); i >= 0 {
		d.waiting = slices.Delete(d.waiting, i, i+1)
	}
}

// shut sends everybody away and lets nobody in any more.
func (d *door) shut() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.closed = true
	for _, v := range d.waiting {
		v.conn.Close()
	}
	d.waiting = nil
}

// sourceOf returns the address, or the network of an IPv6 address: who has one
// address of a /64 has them all.
func sourceOf(a net.Addr) netip.Prefix {
	ip := ipOf(a)
	bits := ip.BitLen()
	if ip.Is6() {
		bits = 64
	}
	p, _ := ip.Prefix(bits)
	return p
}

// ipOf returns the invalid address for what is not on an IP network.
func ipOf(a net.Addr) netip.Addr {
	ap, _ := netip.ParseAddrPort(a.String())
	return ap.Addr().Unmap().WithZone("")
}

// hostOf returns the address without its port.
func hostOf(a net.Addr) string {
	if ip := ipOf(a); ip.IsValid() {
		return ip.String()
	}
	return clean(a.String(), maxUser)
}
