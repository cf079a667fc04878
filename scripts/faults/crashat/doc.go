// Crashat runs a program and lets it die, or lets one of its system calls fail,
// at a chosen point. The points are the calls of the program, of all its threads
// and of all its children, that change files below a directory, counted from 1.
//
//	crashat -match DIR -log FILE -- PROGRAM ARGS...            list the points
//	crashat -match DIR -n 17 -- PROGRAM ARGS...                kill all before the 17th
//	crashat -match DIR -n 17 -one -- PROGRAM ARGS...           kill its process alone
//	crashat -match DIR -n 17 -power 1 -- PROGRAM ARGS...       cut the power there: see -power
//	crashat -match DIR -n 17 -err ENOSPC -- PROGRAM ARGS...    let the 17th fail
//	crashat -match DIR -n 17 -err EIO -sticky -- ...           and all that follow
//	crashat -match DIR -n 17 -err EIO -sticky -end 20s -- ...  until all is killed
//	crashat -match DIR -calls fsync,fdatasync -n 1 -err EIO -- ...
//
// Its exit status is the program's; 137, as of a process that was killed, when
// the point was reached and ended it. TERM, INT and HUP are passed on; QUIT kills
// all at once.
//
// It stops the calls by seccomp's user notification (seccomp_unotify(2), Linux
// 5.19 or later for SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV), so that they count
// in one order over all threads, which strace's counters do not. Writing by
// memory maps is not seen; our programs do not.
package main
