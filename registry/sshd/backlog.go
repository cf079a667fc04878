package sshd

import (
	"reflect"
	"time"
)

// backlog is the queue of packets that x/crypto/ssh has read from a connection
// and nobody has handled. A goroutine of the library waits for room in it, for
// ever when nobody handles packets any more: it, the one for key exchanges, and
// 17 packets of up to 256 KiB would stay when the connection is gone. All that a
// client has to do for it is to send more behind something wrong, with or
// without having authenticated. Nothing that the library exports reaches the
// queue.
type backlog <-chan []byte

// backlogOf returns the queue of a connection of the library, or nil if it has
// none where v0.58.0 has it, which a test would tell.
func backlogOf(conn any) backlog {
	v := reflect.ValueOf(conn)
	for _, field := range []string{"transport", "incoming"} {
		for v.Kind() == reflect.Pointer || v.Kind() == reflect.Interface {
			v = v.Elem()
		}
		if v.Kind() != reflect.Struct {
			return nil
		}
		v = v.FieldByName(field)
	}
	if v.Type() != reflect.TypeFor[chan []byte]() {
		return nil
	}
	return *(*chan []byte)(v.Addr().UnsafePointer())
}

// drain empties the queue of a connection that is closed, until the library has
// found out and closes it.
func (b backlog) drain() {
	if b == nil {
		return
	}
	late := time.NewTimer(time.Minute)
	defer late.Stop()
	for {
		select {
		case _, ok := <-b:
			if !ok {
				return
			}
		case <-late.C:
			return
		}
	}
}
