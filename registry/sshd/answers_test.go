package sshd

import (
	"bytes"
	"encoding/binary"
	"io"
	"testing"
)

// A client may end its requests before it has read the answers, and gets them all.
func TestEveryRequestIsAnsweredBeforeTheEnd(t *testing.T) {
	d := start(t)
	c := d.mustDial(t, "anna", d.operator)
	const stats = 20
	for range 50 {
		s := session1(t, c)
		in, err := s.StdinPipe()
		if err != nil {
			t.Fatal(err)
		}
		out, err := s.StdoutPipe()
		if err != nil {
			t.Fatal(err)
		}
		if err := s.RequestSubsystem("sftp"); err != nil {
			t.Fatal(err)
		}
		requests := []byte{0, 0, 0, 5, 1, 0, 0, 0, 3} // INIT, version 3
		for i := range uint32(stats) {
			body := binary.BigEndian.AppendUint32([]byte{17}, i) // STAT
			body = append(body, 0, 0, 0, 1, '/')
			requests = append(binary.BigEndian.AppendUint32(requests, uint32(len(body))), body...)
		}
		if _, err := in.Write(requests); err != nil {
			t.Fatal(err)
		}
		in.Close()
		got, err := io.ReadAll(out)
		if err != nil {
			t.Fatal(err)
		}
		answers := 0
		for r := bytes.NewReader(got); r.Len() > 0; answers++ {
			var n uint32
			binary.Read(r, binary.BigEndian, &n)
			r.Seek(int64(n), io.SeekCurrent)
		}
		if answers != 1+stats {
			t.Fatalf("%d answers to %d requests", answers, 1+stats)
		}
		s.Close()
	}
}
