//! A program that follows the layout of mailgun's holster (`etcdutil`) to the letter: it runs a command while it leads.
//!
//! Its rules: the key is `/elections/NAME`, followed at once by the lease; the oldest key with the prefix `/elections/NAME` leads;
//! the queue is looked at again when the leader's key is put or deleted; a lost lease is noticed once in a ttl; concede is a
//! new session, and so is a queue without a leader.

use std::process::{Child, Command};
use std::sync::{Arc, Mutex};
use std::thread::JoinHandle;
use std::time::Duration;

use etcd_client::{
    Client, Compare, CompareOp, EventType, GetOptions, KeyValue, LeaseGrantOptions, PutOptions, SortOrder, SortTarget,
    Txn, TxnOp, WatchOptions,
};
use nix::sys::signal::Signal;
use tokio::sync::mpsc::{UnboundedReceiver, UnboundedSender, unbounded_channel};
use tokio::task::LocalSet;
use tokio::time::{interval, sleep, timeout};

use crate::harness::wait::{now, since};
use crate::harness::{ElectCmd, Sandbox, Witness, processes};

/// Seconds; its default is 5.
pub const HOLSTER_TTL: i64 = 3;

const RETRY_INTERVAL: Duration = Duration::from_millis(50);

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Order {
    Concede,
    Close,
}

/// A candidate of it, in a thread of this process.
pub struct HolsterProgram {
    orders: UnboundedSender<Order>,
    thread: Option<JoinHandle<()>>,
    /// The value of the leader's key as it was read last.
    leader: Arc<Mutex<Option<String>>>,
}

impl HolsterProgram {
    /// Candidate `candidate` of the election `name`.
    pub fn start(sandbox: &Sandbox, address: &str, name: &str, candidate: &str) -> HolsterProgram {
        let (orders, inbox) = unbounded_channel();
        let leader = Arc::default();
        let mut command = ElectCmd::new(sandbox).program(Witness::new().command()).process();
        command.stdout(std::process::Stdio::null()).stderr(std::process::Stdio::null());
        let program = Program {
            address: address.to_owned(),
            prefix: format!("/elections/{name}"),
            candidate: candidate.to_owned(),
            command: LeaderCommand { command, child: None },
            inbox,
            leader: Arc::clone(&leader),
        };
        let thread = std::thread::spawn(move || {
            let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
            LocalSet::new().block_on(&runtime, program.run());
        });
        HolsterProgram { orders, thread: Some(thread), leader }
    }

    /// The command is stopped, and the candidate queues again at the back.
    pub fn concede(&self) {
        self.orders.send(Order::Concede).expect("it runs");
    }

    pub fn close(mut self) {
        let _ = self.orders.send(Order::Close);
        self.thread.take().expect("until now").join().expect("it ends");
    }

    /// What its programs would show of the leader.
    pub fn leader(&self) -> Option<String> {
        self.leader.lock().expect("no panic").clone()
    }
}

impl Drop for HolsterProgram {
    fn drop(&mut self) {
        let _ = self.orders.send(Order::Close);
        if let Some(thread) = self.thread.take() {
            let _ = thread.join();
        }
    }
}

/// What runs while it leads.
struct LeaderCommand {
    command: Command,
    child: Option<Child>,
}

impl LeaderCommand {
    fn start(&mut self) {
        if self.child.is_none() {
            self.child = Some(self.command.spawn().expect("the witness is there"));
        }
    }

    fn stop(&mut self) {
        if let Some(mut child) = self.child.take() {
            processes::signal(i32::try_from(child.id()).expect("small"), Signal::SIGTERM);
            child.wait().expect("a child of ours");
        }
    }
}

struct Program {
    address: String,
    prefix: String,
    candidate: String,
    command: LeaderCommand,
    inbox: UnboundedReceiver<Order>,
    leader: Arc<Mutex<Option<String>>>,
}

/// The end of a session.
enum Ended {
    /// Another one follows.
    Reset,
    Closed,
}

impl Program {
    async fn run(mut self) {
        loop {
            if matches!(self.inbox.try_recv(), Ok(Order::Close)) {
                return;
            }
            let Ok(mut client) = Client::connect([&self.address], None).await else {
                sleep(RETRY_INTERVAL).await;
                continue;
            };
            let ended = self.session(&mut client).await;
            // Before the lease is revoked: nothing else runs meanwhile.
            self.command.stop();
            if let Ok(Ended::Closed) = ended {
                return;
            }
            sleep(RETRY_INTERVAL).await;
        }
    }

    async fn session(&mut self, client: &mut Client) -> Result<Ended, etcd_client::Error> {
        let grant = client.lease_grant(HOLSTER_TTL, None::<LeaseGrantOptions>);
        let Ok(granted) = timeout(Duration::from_secs(1), grant).await else { return Ok(Ended::Reset) };
        let lease = granted?.id();
        let alive = Arc::new(Mutex::new(now()));
        let beats = tokio::task::spawn_local(keep_alive(client.clone(), lease, Arc::clone(&alive)));
        let ended = self.stand(client, lease, &alive).await;
        self.command.stop();
        beats.abort();
        // It may be that nobody hears this.
        let _ = timeout(Duration::from_millis(500), client.lease_revoke(lease)).await;
        ended
    }

    async fn stand(
        &mut self,
        client: &mut Client,
        lease: i64,
        alive: &Mutex<Duration>,
    ) -> Result<Ended, etcd_client::Error> {
        let key = format!("{}{lease:x}", self.prefix);
        let absent = Compare::create_revision(key.as_str(), CompareOp::Equal, 0);
        let put = TxnOp::put(key.as_str(), self.candidate.as_str(), Some(PutOptions::new().with_lease(lease)));
        let txn = Txn::new().when([absent]).and_then([put]).or_else([TxnOp::get(key.as_str(), None)]);
        let revision = client.txn(txn).await?.header().map_or(0, etcd_client::ResponseHeader::revision);
        let options = WatchOptions::new().with_prefix().with_start_revision(revision + 1);
        let mut watch = client.watch(self.prefix.as_str(), Some(options)).await?;
        let mut looks = interval(Duration::from_secs(HOLSTER_TTL.unsigned_abs()));
        'evaluate: loop {
            let Some(leader) = self.oldest(client).await? else { return Ok(Ended::Reset) };
            *self.leader.lock().expect("no panic") = Some(String::from_utf8_lossy(leader.value()).into_owned());
            if leader.key() == key.as_bytes() {
                self.command.start();
            } else {
                self.command.stop();
            }
            loop {
                tokio::select! {
                    order = self.inbox.recv() => return Ok(match order {
                        Some(Order::Concede) => Ended::Reset,
                        Some(Order::Close) | None => Ended::Closed,
                    }),
                    // Once in a ttl: has there been a keep-alive within one?
                    _ = looks.tick() => {
                        let last = *alive.lock().expect("no panic");
                        if since(last) > Duration::from_secs(HOLSTER_TTL.unsigned_abs()) {
                            return Ok(Ended::Reset);
                        }
                    }
                    answer = watch.message() => {
                        let Some(answer) = answer? else { return Ok(Ended::Reset) };
                        let about_leader = answer.events().iter().any(|event| {
                            matches!(event.event_type(), EventType::Put | EventType::Delete)
                                && event.kv().is_some_and(|pair| pair.key() == leader.key())
                        });
                        if about_leader {
                            continue 'evaluate;
                        }
                    }
                }
            }
        }
    }

    /// Of all keys with the prefix, whatever follows it.
    async fn oldest(&self, client: &mut Client) -> Result<Option<KeyValue>, etcd_client::Error> {
        let options = GetOptions::new().with_prefix().with_sort(SortTarget::Create, SortOrder::Ascend).with_limit(1);
        Ok(client.get(self.prefix.as_str(), Some(options)).await?.take_kvs().into_iter().next())
    }
}

async fn keep_alive(mut client: Client, lease: i64, alive: Arc<Mutex<Duration>>) {
    while let Ok((mut keeper, mut answers)) = client.lease_keep_alive(lease).await {
        loop {
            if keeper.keep_alive().await.is_err() {
                break;
            }
            match answers.message().await {
                Ok(Some(answer)) if answer.ttl() > 0 => *alive.lock().expect("no panic") = now(),
                _ => break,
            }
            sleep(Duration::from_millis(1000 * HOLSTER_TTL.unsigned_abs() / 3)).await;
        }
        sleep(RETRY_INTERVAL).await;
    }
}
