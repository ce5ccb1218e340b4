//! Puts the catalogue, the goods and the customers in, through the inboxes, as anybody would.
//!
//! Every command has an id made of what it stands for, so a second start puts nothing in twice.

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

use crate::seed::{self, Shelf};

/// How long the broker may take to acknowledge, and the registry to answer.
const PATIENCE: Duration = Duration::from_secs(30);
/// How long the registry rests before it is asked again.
const ASK_AGAIN: Duration = Duration::from_millis(500);
/// The delivery that every piece came with.
const DELIVERY: &str = "opening-stock";

/// Publishes the seed.
///
/// # Errors
/// The registry does not know a schema, or the broker does not take a command.
pub async fn seed(config: &Config, registry: &RegistryClient) -> anyhow::Result<()> {
    put::<catalogue::inbox::Command>(config, registry, albums()).await.context("cannot list the albums")?;
    put::<warehouse::inbox::Command>(config, registry, goods()).await.context("cannot receive the goods")?;
    put::<customers::inbox::Command>(config, registry, shoppers()).await.context("cannot register the customers")
}

async fn put<C: Written>(config: &Config, registry: &RegistryClient, commands: Vec<Outgoing<C>>) -> anyhow::Result<()> {
    let (system, registry) = (config.system.clone(), registry.clone());
    let writers = tokio::task::spawn_blocking(move || look_up::<C>(&registry, &system)).await??;
    let publisher = Publisher::new(config, Authority::Operator, writers)?;
    publisher.publish(commands, PATIENCE).await?;
    Ok(())
}

/// Looks the schemas up. A registry that does not answer is asked again: it is busy with everything that starts.
fn look_up<C: Written>(registry: &RegistryClient, system: &str) -> Result<Writers, WriterError> {
    let deadline = Instant::now() + PATIENCE;
    loop {
        match registry.writers(system, <C as Message>::RECORDS) {
            Err(error) if error.is_transient() && Instant::now() < deadline => {
                tracing::warn!(reason = runtime::telemetry::chain(&error), "waiting for the schemas of the seed");
                std::thread::park_timeout(ASK_AGAIN);
            }
            done => return done,
        }
    }
}

fn command<C>(key: impl Into<String>, command: impl Into<C>, stands_for: &str) -> Outgoing<C> {
    let id = Uuid::new_v5(&Uuid::NAMESPACE_URL, format!("dacapo:seed:{stands_for}").as_bytes());
    Outgoing::new(key, command).with_id(id)
}

fn albums() -> Vec<Outgoing<catalogue::inbox::Command>> {
    let listed = seed::ALBUMS.iter().map(|album| {
        let price = (album.shelf != Shelf::NotSold)
            .then(|| catalogue::events::Money { amount_minor: album.price_minor, currency: "EUR".to_owned() });
        let (sku, title, artist) = (album.sku.to_owned(), album.title.to_owned(), album.artist.to_owned());
        command(album.sku, ListAlbum { sku, title, artist, price }, &format!("list:{}", album.sku))
    });
    listed.collect()
}

fn goods() -> Vec<Outgoing<warehouse::inbox::Command>> {
    let in_the_books = seed::ALBUMS.iter().filter(|album| matches!(album.shelf, Shelf::Stocked | Shelf::Ghost));
    let received = in_the_books.map(|album| {
        let goods =
            ReceiveGoods { sku: album.sku.to_owned(), delivery_id: DELIVERY.to_owned(), quantity: seed::PIECES };
        command(album.sku, goods, &format!("receive:{}", album.sku))
    });
    received.collect()
}

fn shoppers() -> Vec<Outgoing<customers::inbox::Command>> {
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let registered = (0..seed::CUSTOMERS).flat_map(|index| {
        let customer_id = seed::customer_id(index);
        let contact = seed::contact(index);
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
