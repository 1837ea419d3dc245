//! Which stores the configuration asks for, and one task of a sink for each of them and each middle.
//!
//! One function a store: a new one adds its own, and a line in [`start`].

use std::sync::Arc;

use forebay_link::{Subscriber, SubscriberConfig};
use forebay_ops::{Shutdown, admin::Admin};
use prometheus::Registry;

use crate::{
    config::{self, Config},
    feed::{Consumer, Source},
    feed_link::FeedLink,
    http::Tails,
    lake::{LakeSink, split},
    metrics::{self, SinkSource},
    read::LakeFiles,
    registry::Current,
    sink::{Encoded, Limits, Sink, SinkState, SinkTask, SinkTaskConfig},
    tier::StartError,
};

/// What the sinks of a tier share.
pub(crate) struct Context<'a> {
    pub(crate) config: &'a Config,
    pub(crate) metrics: &'a Registry,
    /// The way to the middles.
    pub(crate) link: &'a FeedLink,
    /// What is known of devices.
    pub(crate) known: &'a Current,
    pub(crate) shutdown: &'a Shutdown,
    pub(crate) admin: &'a mut Admin,
}

/// The sinks of a tier at work.
#[derive(Default)]
pub(crate) struct Sinks {
    /// By sink and middle.
    pub(crate) tasks: Vec<(String, SinkTask)>,
    /// Rows that are not in the lake yet, for queries of it.
    pub(crate) tails: Tails,
}

/// Starts the sinks of all stores that are enabled.
///
/// # Errors
/// One cannot start; those that did end when the result is dropped.
pub(crate) fn start(
    context: &mut Context<'_>,
    lake: Option<&Arc<LakeFiles>>,
) -> Result<Sinks, StartError> {
    let mut sinks = Sinks::default();
    if let Some(files) = lake {
        start_lake(context, &mut sinks, files)?;
    }
    #[cfg(feature = "clickhouse")]
    start_clickhouse(context, &mut sinks)?;
    #[cfg(feature = "postgres")]
    start_postgres(context, &mut sinks)?;
    #[cfg(feature = "remote-write")]
    start_remote_write(context, &mut sinks)?;
    #[cfg(feature = "redis")]
    start_redis(context, &mut sinks)?;
    Ok(sinks)
}

fn start_lake(
    context: &mut Context<'_>,
    sinks: &mut Sinks,
    files: &Arc<LakeFiles>,
) -> Result<(), StartError> {
    let lake = &context.config.lake;
    for middle in &context.config.middles {
        let sink = LakeSink::open(&lake.dir)
            .map_err(|error| StartError::Lake { dir: lake.dir.clone(), error })?
            .behind(files.gate());
        let published = files.clone();
        let store = Store {
            name: "lake",
            consumer: &lake.consumer,
            flush: &lake.flush,
            buffer_bytes: lake.buffer.as_usize(),
            stored: Box::new(move |encoded| {
                for part in &encoded.parts {
                    if let Some((hour, _)) = split(&part.name) {
                        published.published(hour);
                    }
                }
            }),
        };
        let task = start_task(context, middle, store, sink)?;
        sinks.tails.0.push(task.1.buffer());
        sinks.tasks.push(task);
    }
    Ok(())
}

#[cfg(feature = "clickhouse")]
fn start_clickhouse(context: &mut Context<'_>, sinks: &mut Sinks) -> Result<(), StartError> {
    let clickhouse = &context.config.clickhouse;
    if !clickhouse.enabled {
        return Ok(());
    }
    for middle in &context.config.middles {
        let store = Store {
            name: "clickhouse",
            consumer: &clickhouse.consumer,
            flush: &clickhouse.flush,
            buffer_bytes: clickhouse.buffer.as_usize(),
            stored: Box::new(|_| {}),
        };
        let pair = |feed| crate::clickhouse::consumer_and_sink(feed, clickhouse);
        sinks.tasks.push(start_pair(context, middle, store, pair)?);
    }
    Ok(())
}

#[cfg(feature = "postgres")]
fn start_postgres(context: &mut Context<'_>, sinks: &mut Sinks) -> Result<(), StartError> {
    let postgres = &context.config.postgres;
    if !postgres.enabled {
        return Ok(());
    }
    for middle in &context.config.middles {
        let store = Store {
            name: "postgres",
            consumer: &postgres.consumer,
            flush: &postgres.flush,
            buffer_bytes: postgres.buffer.as_usize(),
            stored: Box::new(|_| {}),
        };
        let sink = crate::postgres::PostgresSink::new(postgres);
        sinks.tasks.push(start_task(context, middle, store, sink)?);
    }
    Ok(())
}

#[cfg(feature = "remote-write")]
fn start_remote_write(context: &mut Context<'_>, sinks: &mut Sinks) -> Result<(), StartError> {
    let remote_write = &context.config.remote_write;
    if !remote_write.enabled {
        return Ok(());
    }
    for middle in &context.config.middles {
        let store = Store {
            name: "remote-write",
            consumer: &remote_write.consumer,
            flush: &remote_write.flush,
            buffer_bytes: remote_write.buffer.as_usize(),
            stored: Box::new(|_| {}),
        };
        let sink = crate::remote_write::RemoteWriteSink::new(remote_write)
            .map_err(|reason| StartError::Store { key: "remote_write.url", reason })?;
        metrics::remote_write(context.metrics, &middle.name, sink.left_out())?;
        sinks.tasks.push(start_task(context, middle, store, sink)?);
    }
    Ok(())
}

#[cfg(feature = "redis")]
fn start_redis(context: &mut Context<'_>, sinks: &mut Sinks) -> Result<(), StartError> {
    let redis = &context.config.redis;
    if !redis.enabled {
        return Ok(());
    }
    for middle in &context.config.middles {
        let store = Store {
            name: "redis",
            consumer: &redis.consumer,
            flush: &redis.flush,
            buffer_bytes: redis.buffer.as_usize(),
            stored: Box::new(|_| {}),
        };
        let sink = crate::redis::RedisSink::new(redis);
        metrics::redis(context.metrics, &middle.name, sink.not_applicable())?;
        sinks.tasks.push(start_task(context, middle, store, sink)?);
    }
    Ok(())
}

/// What the task of any sink needs to know of its store.
struct Store<'a> {
    /// Among the sinks: in logs, threads and metrics.
    name: &'static str,
    consumer: &'a str,
    flush: &'a config::Flush,
    /// Bytes of the feed held unread at most.
    buffer_bytes: usize,
    /// Told after a range is acked.
    stored: Box<dyn FnMut(&Encoded) + Send>,
}

/// Starts a sink that follows one middle, with its metrics and its part in readiness.
fn start_task(
    context: &mut Context<'_>,
    middle: &config::Middle,
    store: Store<'_>,
    sink: impl Sink,
) -> Result<(String, SinkTask), StartError> {
    start_pair(context, middle, store, |feed| (feed, sink))
}

/// The same for a sink that has something to add to its consumer.
fn start_pair<C: Consumer, S: Sink>(
    context: &mut Context<'_>,
    middle: &config::Middle,
    store: Store<'_>,
    pair: impl FnOnce(Arc<Subscriber>) -> (Arc<C>, S),
) -> Result<(String, SinkTask), StartError> {
    let name = sink_name(store.name, &middle.name, context.config.middles.len());
    let subscriber = Arc::new(Subscriber::start(SubscriberConfig {
        consumer: Some(store.consumer.to_owned()),
        buffer_bytes: store.buffer_bytes,
        ..context.link.subscriber(format!("{name}-feed"), middle)
    })?);
    let task = SinkTaskConfig {
        name: name.clone(),
        limits: range_limits(store.flush),
        registry: context.known.clone(),
        dead_letters: context.config.lake.dead_letters.clone(),
        stored: store.stored,
    };
    let (consumer, sink) = pair(subscriber.clone());
    let task = SinkTask::start(task, consumer, sink, context.shutdown.clone());
    let task = task.map_err(StartError::Thread)?;
    let status = task.status();
    let link = subscriber.stats();
    metrics::sink(
        context.metrics,
        SinkSource {
            sink: store.name.to_owned(),
            middle: middle.name.clone(),
            status: status.clone(),
            buffer: task.buffer(),
            feed: subscriber as Arc<dyn Source>,
            link,
        },
    )?;
    context.admin.ready(name.clone(), move || match status.state() {
        (SinkState::Alarmed | SinkState::Ended, reason) => Err(reason),
        _ => Ok(()),
    });
    Ok((name, task))
}

/// A sink's name in logs and threads: the middle's is added where there are several.
fn sink_name(sink: &str, middle: &str, middles: usize) -> String {
    if middles == 1 { sink.to_owned() } else { format!("{sink}-{middle}") }
}

fn range_limits(flush: &config::Flush) -> Limits {
    Limits {
        rows: flush.rows,
        held_bytes: flush.held.as_usize(),
        outstanding_bytes: flush.outstanding.get(),
        age: flush.age.into(),
    }
}
