package sshd

import (
	"encoding/binary"
	"io"
	"testing"
	"testing/synctest"
)

// settle is the bit of a length behind which the server has the time to do all
// that it will.
const settle = 1 << 15

// FuzzPackets has a client that has authenticated send what comes to the
// fuzzer's mind: packets, each behind its length of two bytes. Others are served
// then, and when the client is gone nothing of it is left, which the bubble sees.
func FuzzPackets(f *testing.F) {
	for _, packets := range attacks {
		var seed []byte
		for _, p := range packets[:min(len(packets), 8)] {
			if len(p) < 1<<10 {
				seed = append(binary.BigEndian.AppendUint16(seed, uint16(len(p)|settle)), p...)
			}
		}
		f.Add(seed, true)
	}
	f.Fuzz(func(t *testing.T, data []byte, operator bool) {
		synctest.Test(t, func(t *testing.T) {
			d := newDaemon(t)
			p := d.serveInMemory()
			user, key := "anna", d.operator
			if !operator {
				user, key = AgentUser, d.agent
			}
			nc := p.connect("192.0.2.2:1")
			r, err := dialRaw(nc, user, key)
			if err != nil {
				t.Fatal(err)
			}
			go io.Copy(io.Discard, r.in)
			for len(data) >= 2 {
				head := int(binary.BigEndian.Uint16(data))
				n := min(head&(settle-1), len(data)-2)
				if r.send(data[2:2+n]) != nil {
					break
				}
				if head&settle != 0 {
					synctest.Wait()
				}
				data = data[2+n:]
			}
			synctest.Wait()
			admin := d.member(t, p.connect("192.0.2.3:1"), "anna", d.operator)
			if out, err := session1(t, admin).Output("help"); err != nil || len(out) == 0 {
				t.Errorf("another operator gets %q, %v", out, err)
			}
			nc.Close()
			synctest.Wait()
			if all := d.Connections(); len(all) != 1 || d.Stats().Sessions != 0 || d.Stats().Errors != 0 {
				t.Errorf("%d connections, %+v, when the client is gone", len(all), d.Stats())
			}
			admin.Close()
			d.end(t)
		})
	})
}
