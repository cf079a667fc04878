package sshd

import (
	"bytes"
	"encoding/binary"
	"io"
	"strings"
	"testing"
	"testing/synctest"
	"time"

	"golang.org/x/sys/unix"
)

// packet returns the packet of a message of these fields: integers, strings and
// bytes that go as they are.
func packet(message byte, fields ...any) []byte {
	b := []byte{message}
	for _, f := range fields {
		switch f := f.(type) {
		case int:
			b = binary.BigEndian.AppendUint32(b, uint32(f))
		case string:
			b = append(binary.BigEndian.AppendUint32(b, uint32(len(f))), f...)
		case []byte:
			b = append(b, f...)
		case bool:
			b = append(b, map[bool]byte{true: 1}[f])
		}
	}
	return b
}

const (
	window  = 1 << 21
	maxData = 1 << 15
	all32   = 1<<32 - 1
)

// opening opens channel 0; after undecided nobody waits for the answer.
var (
	opening   = packet(msgOpen, "session", 0, window, maxData)
	undecided = packet(msgOpen, "session", 0, window, maxData)
)

// begin opens a channel and starts something on it.
func begin(request string, more ...any) [][]byte {
	return [][]byte{opening, packet(msgRequest, append([]any{0, request, true}, more...)...)}
}

func times(n int, packets ...[]byte) (out [][]byte) {
	for range n {
		out = append(out, packets...)
	}
	return out
}

func with(packets [][]byte, more ...[]byte) [][]byte { return append(packets, more...) }

// attacks are what an authenticated client may send that no library sends.
var attacks = map[string][][]byte{
	"answers that nobody asked for": times(100, packet(msgRequestSuccess), packet(msgRequestFailure),
		packet(msgSuccess, 0), packet(msgFailure, 0), packet(msgOpenConfirm, 0, 0, window, maxData), packet(msgOpenFailure, 0, 1, "", "")),
	"global answers":  times(1000, packet(msgRequestSuccess)),
	"channel answers": with(begin("shell"), times(1000, packet(msgSuccess, 0))...),
	// CVE-2026-39830, CVE-2026-56855, CVE-2026-78662: before the channel is confirmed.
	"requests on a channel that is not decided": with([][]byte{undecided}, times(100, packet(msgRequest, 0, "exec", true, "x"))...),
	"data on a channel that is not decided":     with([][]byte{undecided}, times(60, packet(msgData, 0, strings.Repeat("x", maxData)))...),
	"answers on a channel that is not decided":  with([][]byte{undecided}, times(100, packet(msgOpenConfirm, 0, 0, window, maxData), packet(msgOpenFailure, 0, 1, "", ""))...),
	"closed before it is decided":               times(50, packet(msgOpen, "session", 0, window, maxData), packet(msgClose, 0), packet(msgEOF, 0)),
	"channels that do not exist": {
		packet(msgData, 7, "x"), packet(msgExtendedData, 7, 1, "x"), packet(msgEOF, 7), packet(msgClose, 7),
		packet(msgWindowAdjust, 7, 1), packet(msgRequest, 7, "exec", true, "x"), packet(msgData, all32, "x"),
	},
	"a window beyond 4 GiB":    with(begin("shell"), packet(msgWindowAdjust, 0, all32), packet(msgWindowAdjust, 0, all32)),
	"a window of nothing":      {packet(msgOpen, "session", 0, 0, 0), packet(msgRequest, 0, "exec", true, "help")},
	"packets of one byte":      {packet(msgOpen, "session", 0, window, 1), packet(msgRequest, 0, "exec", true, "help")},
	"packets of 4 GiB":         {packet(msgOpen, "session", 0, all32, all32), packet(msgRequest, 0, "exec", true, "help")},
	"more than the window":     with(begin("shell"), times(100, packet(msgData, 0, strings.Repeat("x", maxData)))...),
	"more than a packet":       with(begin("shell"), packet(msgData, 0, strings.Repeat("x", 250<<10))),
	"data of 4 GiB, it says":   with(begin("shell"), packet(msgData, 0, all32, []byte("x"))),
	"errors as input":          with(begin("shell"), times(100, packet(msgExtendedData, 0, 1, "x"))...),
	"a request of 4 GiB":       {opening, packet(msgRequest, 0, all32, []byte("exec"))},
	"a command of 4 GiB":       begin("exec", all32, []byte("x")),
	"a command of 200 KB":      begin("exec", strings.Repeat(`\'"x`, 50<<10)),
	"a name of 200 KB":         {opening, packet(msgRequest, 0, strings.Repeat("x", 200<<10), true)},
	"a terminal of 4 GiB":      begin("pty-req", strings.Repeat("x", 100<<10), all32, all32, all32, all32, strings.Repeat("\x00", 100<<10)),
	"a terminal cut short":     begin("pty-req", "xterm", 80),
	"sizes without a terminal": with([][]byte{opening}, times(1000, packet(msgRequest, 0, "window-change", false, all32, all32, 0, 0))...),
	"sizes all the time": with(begin("pty-req", "xterm", 80, 24, 0, 0, ""),
		with([][]byte{packet(msgRequest, 0, "shell", true)}, times(1000, packet(msgRequest, 0, "window-change", false, all32, 0, 0, 0))...)...),
	"signals":                       with(begin("exec", "help"), times(1000, packet(msgRequest, 0, "signal", false, "KILL"))...),
	"an environment":                with([][]byte{opening}, times(1000, packet(msgRequest, 0, "env", false, "LD_PRELOAD", strings.Repeat("x", 1000)))...),
	"shells without end":            times(100, opening, packet(msgRequest, 0, "shell", false)),
	"channels of other kinds":       times(100, packet(msgOpen, "direct-tcpip", 0, window, maxData, "localhost", 22, "localhost", 1)),
	"a channel of a long kind":      {packet(msgOpen, strings.Repeat("x", 200<<10), 0, window, maxData)},
	"global requests":               times(1000, packet(msgGlobalRequest, "tcpip-forward", true, "0.0.0.0", 22)),
	"a global request of 4 GiB":     {packet(msgGlobalRequest, all32, []byte("x"))},
	"an empty packet":               {{}},
	"messages that do not exist":    {{0}, {192}, {255}, {19}, {49}, {79}, {127}},
	"messages of the handshake":     {packet(msgServiceRequest, "ssh-userauth"), packet(msgUserauthRequest, "root", "ssh-connection", "none"), {msgUserauthSuccess}},
	"key exchanges":                 times(50, (*raw)(nil).kexInit()),
	"a key exchange cut short":      {{msgKexInit}, packet(msgKexInit, []byte("too short"))},
	"new keys that are none":        times(10, []byte{msgNewKeys}),
	"SFTP of 4 GiB":                 with(begin("subsystem", "sftp"), packet(msgData, 0, packet(0, all32)[1:])),
	"SFTP of nothing":               with(begin("subsystem", "sftp"), times(100, packet(msgData, 0, "\x00\x00\x00\x00"))...),
	"SFTP with a handle of 4 GiB":   with(begin("subsystem", "sftp"), packet(msgData, 0, "\x00\x00\x00\x09\x04\x00\x00\x00\x01\xff\xff\xff\xff")),
	"SFTP without its beginning":    with(begin("subsystem", "sftp"), packet(msgData, 0, "\x00\x00\x00\x0e\x0b\x00\x00\x00\x01\x00\x00\x00\x01/\x00\x00\x00\x00")),
	"everything, then the end":      with(begin("shell"), packet(msgEOF, 0), packet(msgClose, 0), packet(msgClose, 0), packet(msgData, 0, "x"), packet(msgRequest, 0, "exec", true, "x")),
	"what the answer would contain": times(100, packet(msgGlobalRequest, "keepalive@openssh.com", true), packet(msgRequestFailure), packet(msgRequestFailure)),
}

// FAULTS, the holes of the libraries: whatever a client sends, others work on,
// and what its connection held is given back when it is gone.
func TestNoPacketStopsTheOthers(t *testing.T) {
	for name, packets := range attacks {
		t.Run(name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				d := newDaemon(t)
				p := d.serveInMemory()
				nc := p.connect("192.0.2.2:1")
				r, err := dialRaw(nc, "anna", d.operator)
				if err != nil {
					t.Fatal(err)
				}
				go io.Copy(io.Discard, r.in)
				for _, packet := range packets {
					if r.send(packet) != nil {
						break // cut, which is fair
					}
					if len(packet) > 0 && &packet[0] == &opening[0] {
						synctest.Wait() // before, all that is about it is passed over
					}
				}
				synctest.Wait()
				admin := d.member(t, p.connect("192.0.2.3:1"), "anna", d.operator)
				if out, err := session1(t, admin).Output("help"); err != nil || len(out) == 0 {
					t.Errorf("another operator gets %q, %v", out, err)
				}
				nc.Close()
				synctest.Wait()
				if all := d.Connections(); len(all) != 1 || d.Stats().Sessions != 0 {
					t.Errorf("%d connections and %d sessions, when the attacker is gone", len(all), d.Stats().Sessions)
				}
				if l := d.log.lines(t, "internal error"); len(l) != 0 {
					t.Errorf("log %v", l)
				}
				admin.Close()
				d.end(t)
			})
		})
	}
}

// Nobody can have answers pile up: who takes none is cut.
func TestWhoTakesNoAnswersIsCut(t *testing.T) {
	for name, packet := range map[string][]byte{
		"global requests": packet(msgGlobalRequest, "x", true),
		"channels":        packet(msgOpen, "session", 0, window, maxData),
		"requests":        packet(msgRequest, 0, "env", true, "a", "b"),
	} {
		t.Run(name, func(t *testing.T) {
			d := newDaemon(t, func(o *Options) { o.Stall = 50 * time.Millisecond })
			p := d.serveInMemory()
			nc := p.connect("192.0.2.2:1")
			r, err := dialRaw(nc, "anna", d.operator)
			if err != nil {
				t.Fatal(err)
			}
			r.send(opening)
			if _, err := r.receive(); err != nil {
				t.Fatal(err)
			}
			sent := 0
			for r.send(packet) == nil {
				sent += len(packet)
			}
			if sent > 8<<20 {
				t.Errorf("%d bytes were taken", sent)
			}
			if l := d.log.wait(t, "connection closed"); l["error"] != errStalled.Error() && l["error"] != "64 channels refused" {
				t.Errorf("log %v, want why", l)
			}
			d.end(t)
		})
	}
}

// CVE-2026-39834: a write of 4 GiB or more never came to its end.
func TestWriteOfMoreThan4GiB(t *testing.T) {
	const size = 1<<32 + 1
	zeros, err := unix.Mmap(-1, 0, size, unix.PROT_READ, unix.MAP_PRIVATE|unix.MAP_ANON|unix.MAP_NORESERVE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(zeros)
	d := newDaemon(t)
	w := &pieces{}
	n, err := newOutlet(&conn{s: d.Server}, w).Write(zeros)
	if n != size || err != nil || w.sum != size || w.most > piece {
		t.Errorf("Write = %d, %v, in pieces of up to %d, %d in all", n, err, w.most, w.sum)
	}
}

// pieces takes note of what is written, and nothing else.
type pieces struct{ sum, most int }

func (p *pieces) Write(b []byte) (int, error) {
	p.sum += len(b)
	p.most = max(p.most, len(b))
	return len(b), nil
}

// The raw client is one: what it sends is understood.
func TestRawClientSpeaksSSH(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		d := newDaemon(t)
		d.front.exec = echo
		p := d.serveInMemory()
		r, err := dialRaw(p.connect("192.0.2.2:1"), "anna", d.operator)
		if err != nil {
			t.Fatal(err)
		}
		for _, packet := range begin("exec", "status 7") {
			if err := r.send(packet); err != nil {
				t.Fatal(err)
			}
			synctest.Wait()
		}
		var got []byte
		for !bytes.Contains(got, []byte("exit-status")) {
			b, err := r.receive()
			if err != nil {
				t.Fatal(err)
			}
			got = append(got, b...)
		}
		if !bytes.Contains(got, []byte("out status 7\n")) || got[len(got)-1] != 7 {
			t.Errorf("the server answers %q", got)
		}
		if _, err := dialRaw(p.connect("192.0.2.2:1"), "anna", newKey(t)); err == nil {
			t.Error("a stranger is in")
		}
		r.Close()
		d.end(t)
	})
}
