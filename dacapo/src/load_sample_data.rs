//! Loads the sample data: sends the albums, goods and customers as commands to the inboxes.
//!
//! The id of a command is derived from its content, so loading twice has no effect.

use std::time::{Duration, Instant};

use anyhow::Context;
use catalogue::inbox::ListAlbum;
use customers::inbox::{RegisterCustomer, VerifyCustomer};
use runtime::{
    codec::{WriterError, Writers},
    config::Config,
    message::{Message, Written},
    publisher::{Authority, Outgoing, Publisher},
    registry::RegistryClient,
};
use serde_json::Value;
use uuid::Uuid;
use warehouse::inbox::ReceiveGoods;

use crate::sample_data::{self, Availability};

/// How long the broker may take to acknowledge, and the registry to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// The pause before the registry is queried again.
const RETRY_PAUSE: Duration = Duration::from_millis(500);
/// The delivery id of all goods.
const DELIVERY: &str = "opening-stock";

/// Sends the sample data.
///
/// # Errors
/// The registry does not know a schema, or the broker refuses a command.
pub async fn load(config: &Config, registry: &RegistryClient) -> anyhow::Result<()> {
    send::<catalogue::inbox::Command>(config, registry, albums()).await.context("cannot list the albums")?;
    send::<warehouse::inbox::Command>(config, registry, goods()).await.context("cannot receive the goods")?;
    send::<customers::inbox::Command>(config, registry, shoppers()).await.context("cannot register the customers")
}

async fn send<C: Written>(
    config: &Config,
    registry: &RegistryClient,
    commands: Vec<Outgoing<C>>,
) -> anyhow::Result<()> {
    let (system, registry) = (config.system.clone(), registry.clone());
    let writers = tokio::task::spawn_blocking(move || look_up::<C>(&registry, &system)).await??;
    let publisher = Publisher::new(config, Authority::Operator, writers)?;
    publisher.publish(commands, PATIENCE).await?;
    Ok(())
}

/// Looks up the schemas. Transient failures are retried: the registry is busy while the system starts.
fn look_up<C: Written>(registry: &RegistryClient, system: &str) -> Result<Writers, WriterError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match registry.writers(system, <C as Message>::RECORDS) {
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                tracing::warn!(
                    reason = runtime::telemetry::chain(&error),
                    "waiting for the schemas of the sample data"
                );
                std::thread::park_timeout(RETRY_PAUSE);
            }
            done => return done,
        }
    }
}

fn command<C>(key: impl Into<String>, command: impl Into<C>, identity: &str) -> Outgoing<C> {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("dacapo:seed:{identity}").as_bytes());
    Outgoing::new(key, command).with_id(id)
}

fn albums() -> Vec<Outgoing<catalogue::inbox::Command>> {
    let listed = sample_data::ALBUMS.iter().map(|album| {
        let price = (album.availability != Availability::NotForSale)
            .then(|| catalogue::events::Money { amount_minor: album.price_minor, currency: "EUR".to_owned() });
        let (sku, title, artist) = (album.sku.to_owned(), album.title.to_owned(), album.artist.to_owned());
        command(album.sku, ListAlbum { sku, title, artist, price }, &format!("list:{}", album.sku))
    });
    listed.collect()
}

fn goods() -> Vec<Outgoing<warehouse::inbox::Command>> {
    let received = sample_data::ALBUMS
        .iter()
        .filter(|album| matches!(album.availability, Availability::InStock | Availability::MissingFromShelf));
    let commands = received.map(|album| {
        let goods =
            ReceiveGoods { sku: album.sku.to_owned(), delivery_id: DELIVERY.to_owned(), quantity: sample_data::PIECES };
        command(album.sku, goods, &format!("receive:{}", album.sku))
    });
    commands.collect()
}

fn shoppers() -> Vec<Outgoing<customers::inbox::Command>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let registered = (0..sample_data::CUSTOMERS).flat_map(|index| {
        let customer_id = sample_data::customer_id(index);
        let contact = sample_data::contact(index);
        let contact = customers::events::Contact { name: text(&contact["name"]), email: text(&contact["email"]) };
        let register =
            RegisterCustomer { customer_id: customer_id.clone(), contact, marketing_consent: index % 3 == 0 };
        let verify = VerifyCustomer { customer_id: customer_id.clone() };
        [
            command(customer_id.as_str(), register, &format!("register:{customer_id}")),
            command(customer_id.as_str(), verify, &format!("verify:{customer_id}")),
        ]
    });
    registered.collect()
}
