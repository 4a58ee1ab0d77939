// A participant of an election of clientv3/concurrency, as Go programs are: it runs a command while it leads.
//
//	participant ADDRESS PREFIX NAME -- COMMAND...
//
// SIGUSR1: stop the command, resign, and campaign again. SIGTERM: stop the command, close the session, and exit. When its
// session is lost, it kills the command and begins a new session. The command dies with this process.
package main

import (
	"context"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"syscall"
	"time"

	"go.etcd.io/etcd/clientv3"
	"go.etcd.io/etcd/clientv3/concurrency"
)

// Seconds.
const ttl = 3

func main() {
	// The kernel sends the parent's death signal when the thread that made the child ends.
	runtime.LockOSThread()
	address, prefix, name, command := os.Args[1], os.Args[2], os.Args[3], os.Args[5:]
	client, err := clientv3.New(clientv3.Config{Endpoints: []string{address}, DialTimeout: 5 * time.Second})
	if err != nil {
		log.Fatal(err)
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	for {
		session, err := concurrency.NewSession(client, concurrency.WithTTL(ttl))
		if err != nil {
			time.Sleep(200 * time.Millisecond)
			continue
		}
		election := concurrency.NewElection(session, prefix)
		for serve(session, election, name, command, signals) {
		}
	}
}

// serve campaigns and leads once. It returns false when the session is lost.
func serve(session *concurrency.Session, election *concurrency.Election, name string, command []string, signals chan os.Signal) bool {
	campaign, cancel := context.WithCancel(context.Background())
	defer cancel()
	won := make(chan error, 1)
	go func() { won <- election.Campaign(campaign, name) }()
	for {
		select {
		case <-session.Done():
			return false
		case received := <-signals:
			// A waiter has nothing to resign.
			if received == syscall.SIGTERM {
				leave(session)
			}
		case err := <-won:
			if err != nil {
				return false
			}
			return lead(session, election, command, signals)
		}
	}
}

func lead(session *concurrency.Session, election *concurrency.Election, command []string, signals chan os.Signal) bool {
	child := exec.Command(command[0], command[1:]...)
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	if err := child.Start(); err != nil {
		log.Fatal(err)
	}
	ended := make(chan struct{})
	go func() { child.Wait(); close(ended) }()
	stop := func(how os.Signal) {
		child.Process.Signal(how)
		<-ended
	}
	select {
	case <-session.Done():
		stop(syscall.SIGKILL)
		return false
	case <-ended:
	case received := <-signals:
		stop(syscall.SIGTERM)
		if received == syscall.SIGTERM {
			leave(session)
		}
	}
	request, cancel := context.WithTimeout(context.Background(), 2*time.Second)
	defer cancel()
	return election.Resign(request) == nil
}

func leave(session *concurrency.Session) {
	session.Close()
	os.Exit(0)
}
