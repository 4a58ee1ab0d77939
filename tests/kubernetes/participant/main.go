// A participant of an election of client-go's, as controllers are: it runs a command while it leads.
//
//	participant URL NAMESPACE LEASE NAME SECONDS -- COMMAND...
//
// SECONDS is the lease duration; the other times are in client-go's proportions. SIGUSR1: stop the command, release, and campaign
// again. SIGTERM: stop the command, release, and exit. When client-go says that it leads no more, it kills the command and
// campaigns again. Its log says who leads. The command dies with this process.
package main

import (
	"context"
	"log"
	"os"
	"os/exec"
	"os/signal"
	"runtime"
	"strconv"
	"syscall"
	"time"

	metav1 "k8s.io/apimachinery/pkg/apis/meta/v1"
	coordinationv1 "k8s.io/client-go/kubernetes/typed/coordination/v1"
	"k8s.io/client-go/rest"
	"k8s.io/client-go/tools/leaderelection"
	"k8s.io/client-go/tools/leaderelection/resourcelock"
)

func check(err error) {
	if err != nil {
		log.Fatal(err)
	}
}

func main() {
	// The kernel sends the parent's death signal when the thread that made the child ends.
	runtime.LockOSThread()
	url, namespace, lease, name, command := os.Args[1], os.Args[2], os.Args[3], os.Args[4], os.Args[7:]
	seconds, err := strconv.Atoi(os.Args[5])
	check(err)
	client, err := coordinationv1.NewForConfig(&rest.Config{Host: url, BearerToken: os.Getenv("TOKEN")})
	check(err)
	lock := &resourcelock.LeaseLock{
		LeaseMeta:  metav1.ObjectMeta{Name: lease, Namespace: namespace},
		Client:     client,
		LockConfig: resourcelock.ResourceLockConfig{Identity: name},
	}
	signals := make(chan os.Signal, 8)
	signal.Notify(signals, syscall.SIGTERM, syscall.SIGUSR1)
	for {
		campaign(lock, time.Duration(seconds)*time.Second, command, signals)
	}
}

// campaign takes part until a term of this participant has ended, or a signal has come.
func campaign(lock *resourcelock.LeaseLock, duration time.Duration, command []string, signals chan os.Signal) {
	running, cancel := context.WithCancel(context.Background())
	defer cancel()
	won, ended := make(chan struct{}), make(chan struct{})
	elector, err := leaderelection.NewLeaderElector(leaderelection.LeaderElectionConfig{
		Lock:          lock,
		LeaseDuration: duration,
		RenewDeadline: duration * 2 / 3,
		RetryPeriod:   duration * 2 / 15,
		// The command is gone when the context is cancelled.
		ReleaseOnCancel: true,
		Callbacks: leaderelection.LeaderCallbacks{
			OnStartedLeading: func(context.Context) { close(won) },
			OnStoppedLeading: func() {},
			OnNewLeader:      func(identity string) { log.Printf("%q leads", identity) },
		},
	})
	check(err)
	go func() { elector.Run(running); close(ended) }()
	leave := func(received os.Signal) {
		cancel()
		<-ended
		if received == syscall.SIGTERM {
			os.Exit(0)
		}
	}
	select {
	case <-ended:
		return
	case received := <-signals:
		leave(received)
		return
	case <-won:
	}
	child := exec.Command(command[0], command[1:]...)
	child.SysProcAttr = &syscall.SysProcAttr{Pdeathsig: syscall.SIGKILL}
	check(child.Start())
	gone := make(chan struct{})
	go func() { child.Wait(); close(gone) }()
	select {
	case <-ended:
		log.Print("leads no more")
		child.Process.Kill()
		<-gone
	case <-gone:
		leave(nil)
	case received := <-signals:
		child.Process.Signal(syscall.SIGTERM)
		<-gone
		leave(received)
	}
}
